"""Runs that overlap submit nothing twice, one after the other or side by side, ended or killed."""

from __future__ import annotations

import pytest
from support.schedulers.standin_farm import KINDS, Farm
from support.small_job import kill_group

pytestmark = pytest.mark.slow
ONCE = {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", ["submitting", "polling"])
def test_a_run_takes_over_what_a_killed_one_of_other_branches_left(farm: Farm, kind: str, moment: str) -> None:
    for branch in range(4):
        farm.fail(branch, "RUNNING:4")
    farm.kill_one_that(kind, moment, "--branches", "0:2", after=2)
    done = farm.run(kind, "--branches", "1:4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions()[1] == farm.submissions()[2] == farm.submissions()[3] == 1
    # the first one again, and all
    for options in (("--branches", "0:2"), ()):
        done = farm.run(kind, *options)
        assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == ONCE


def test_two_jobs_that_share_inputs_at_the_same_time(farm: Farm) -> None:
    for branch in range(4):
        farm.fail(branch, "RUNNING:3")
    first = farm.start("slurm")
    try:
        farm.scheduler.wait_for(lambda: bool(farm.scheduler.jobs()))
        farm.write_job(4, first=2)
        second = farm.start("slurm")
        farm.scheduler.wait_for(lambda: "waits for another run that makes 2 of the 4 outputs" in farm.said)
        assert first.wait(timeout=90) == 0, farm.said
        assert second.wait(timeout=30) == 0, farm.said
    finally:
        kill_group(first)
        kill_group(second)
    assert len(farm.scheduler.jobs()) == 6, "two files are in both jobs"
    assert farm.made() == 6


def test_jobs_of_another_batch_system_are_left_alone(farm: Farm) -> None:
    for branch in range(4):
        farm.fail(branch, "RUNNING:60")
    process = farm.start("slurm")
    farm.scheduler.wait_for(lambda: farm.scheduler.calls("squeue") > 0)
    kill_group(process)
    done = farm.run("htcondor")
    assert done.returncode == 40
    assert "on slurm makes one of the branches" in done.stdout
    assert "go on with --workflow slurm" in done.stdout
    assert farm.scheduler.calls("condor_submit") == 0
    assert "Traceback" not in done.stdout + done.stderr


def test_what_a_killed_run_left_and_the_scheduler_lost_is_submitted(farm: Farm) -> None:
    for branch in range(4):
        farm.fail(branch, "vanish")
    process = farm.start("slurm", "--branches", "0:2")
    farm.scheduler.wait_for(lambda: farm.scheduler.calls("sbatch") >= 3)
    kill_group(process)
    farm.scheduler.faults.clear()
    done = farm.run("slurm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.made() == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_whose_state_was_removed_finds_its_jobs_in_the_queue(farm: Farm, kind: str) -> None:
    for branch in range(4):
        farm.fail(branch, "RUNNING:12")
    farm.kill_one_that(kind, "polling")
    for known in farm.store.glob("DownloadAOD/*.work/*_jobs_*.json"), farm.store.glob("DownloadAOD/*.work/*.jsonl"):
        next(known).unlink()
    done = farm.run(kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == ONCE
    assert not list(farm.store.glob(".batch/DownloadAOD/*.json")), "nothing of it is in the queue any more"
