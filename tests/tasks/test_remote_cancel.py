"""``--cancel-jobs``: whatever was submitted leaves the queue, and the next run submits anew."""

from __future__ import annotations

import pytest
from support.schedulers.standin_farm import Farm
from support.small_job import kill_group

pytestmark = pytest.mark.slow


def states(farm: Farm) -> list[str]:
    return [job["state"] for job in farm.scheduler.jobs()]


@pytest.mark.parametrize(("kind", "moment"), [("slurm", "polling"), ("htcondor", "submitting")])
def test_all_jobs_leave_the_queue_and_the_next_run_submits_anew(farm: Farm, kind: str, moment: str) -> None:
    for branch in range(4):
        farm.fail(branch, "RUNNING:60")
    farm.kill_one_that(kind, moment, after=3)
    submitted = len(states(farm))
    assert submitted >= 3
    done = farm.run(kind, "--cancel-jobs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(farm) == ["CANCELLED"] * submitted
    assert not list(farm.store.glob("DownloadAOD/*.work/*_jobs*.json"))
    assert not list(farm.store.glob(".batch/DownloadAOD/*.json"))
    farm.scheduler.faults.clear()
    done = farm.run(kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(farm) == ["CANCELLED"] * submitted + ["COMPLETED"] * 4


def test_a_cancellation_that_fails_says_so_and_can_be_repeated(farm: Farm) -> None:
    for branch in range(4):
        farm.fail(branch, "RUNNING:60")
    process = farm.start("slurm")
    farm.scheduler.wait_for(lambda: farm.scheduler.calls("squeue") > 0)
    refused = farm.run("slurm", "--cancel-jobs")
    assert refused.returncode == 40
    assert "another process looks after the jobs" in refused.stdout
    kill_group(process)
    farm.scheduler.set("fail_scancel", 1)
    done = farm.run("slurm", "--cancel-jobs")
    assert done.returncode == 40
    assert "scancel failed with code 1" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert states(farm) == ["RUNNING"] * 4
    assert farm.run("slurm", "--cancel-jobs").returncode == 0
    assert states(farm) == ["CANCELLED"] * 4
    assert farm.run("slurm", "--cancel-jobs").returncode == 0, "there is nothing left to cancel"
