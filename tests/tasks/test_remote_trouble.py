"""Schedulers that answer late, wrongly or not at all: nothing is submitted twice, and a failure counts once."""

from __future__ import annotations

import json

import pytest
from support.schedulers.standin_farm import KINDS, Farm
from support.small_job import kill_group

pytestmark = pytest.mark.slow
ONCE = {0: 1, 1: 1, 2: 1, 3: 1}
FAST = {"tasks.remote_manager.IN_FLIGHT": 0.5}


def asked(farm: Farm, branch: int, what: str) -> list[float]:
    return [job[what] for job in farm.scheduler.jobs() if farm.branch_of(job) == branch]


@pytest.mark.parametrize("kind", KINDS)
def test_a_submission_is_not_repeated_before_the_scheduler_says_that_it_has_none(farm: Farm, kind: str) -> None:
    farm.constants = FAST
    farm.scheduler.set("lose_answers", 1)
    farm.scheduler.set("then_deaf", 2)
    done = farm.run(kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == ONCE


def test_a_submission_of_which_nobody_knows_is_looked_for_at_every_poll(farm: Farm) -> None:
    farm.constants = FAST | {"tasks.remote_manager.PATIENCE": 3.0}
    farm.scheduler.set("lose_answers", 1)
    farm.scheduler.set("then_deaf", 5)
    done = farm.run("slurm", "--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 4 jobs were not taken" in done.stdout
    assert farm.submissions() == ONCE


def test_what_one_call_had_submitted_before_it_was_refused_is_not_forgotten(farm: Farm) -> None:
    farm.scheduler.set("refuse_after", 2)
    done = farm.run("htcondor")
    assert done.returncode == 40
    assert farm.submissions() == {0: 1, 1: 1}
    assert farm.made() == 2, "the two that were taken are waited for"
    assert "branch 2: not submitted: submission of htcondor job(s)" in done.stdout
    assert "Failed to parse command file" in done.stdout
    farm.scheduler.unset("refuse_after")
    assert farm.run("htcondor").returncode == 0
    assert farm.submissions() == ONCE


def test_a_failure_is_learnt_from_once_though_other_answers_are_missing(farm: Farm) -> None:
    farm.constants = {"tasks.remote_manager.Watched.chunk_size_query": 2}
    farm.write_job(4, resources={"download": {"memory": 2}})
    farm.fail(0, "memory:3000")
    farm.fail(3, "RUNNING:3")
    farm.scheduler.set("bad_name", "-DownloadAOD-3-")
    farm.scheduler.set("bad_answers", 3)
    done = farm.run("slurm", "--retries", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Socket timed out" in done.stdout
    assert asked(farm, 0, "memory") == [2000, 4000]


def test_a_retry_that_is_refused_is_one_failed_job_among_others(farm: Farm) -> None:
    farm.scheduler.set("largest_node", 3000)
    farm.write_job(4, resources={"download": {"memory": 2}})
    farm.fail(1, *["memory:9000"] * 9)
    for branch in (2, 3):
        farm.fail(branch, "RUNNING:3")
    for options, code in ((("--tolerance", "0.25"), 0), ((), 40)):
        done = farm.run("slurm", *options)
        assert done.returncode == code, done.stdout + done.stderr
        assert farm.made() == 3, "the others are waited for"
        assert "branch 1: not submitted:" in done.stdout
        assert "Requested node configuration is not available" in done.stdout
        assert "not taken by the scheduler, log" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
    assert asked(farm, 1, "memory") == [2000, 2000], "a rerun asks for what the job says, not for what was refused"


def test_memory_is_raised_up_to_the_largest_node_of_the_partition(farm: Farm) -> None:
    farm.scheduler.set("partitions", "main*|infinite|(null)|3000\nbig|infinite|(null)|9000")
    farm.scheduler.set("largest_node", 3000)
    farm.write_job(4, resources={"download": {"memory": 2}})
    farm.fail(1, "memory:2500")
    farm.fail(2, *["memory:3500"] * 9)
    done = farm.run("slurm", "--retries", "5")
    assert done.returncode == 40
    assert asked(farm, 1, "memory") == [2000, 3000]
    assert asked(farm, 2, "memory") == [2000, 3000], "a further attempt would get no more"


def test_losses_do_not_count_after_the_submitter_was_killed(farm: Farm) -> None:
    farm.fail(0, *["PREEMPTED"] * 4)
    farm.kill_one_that("slurm", "submitting", after=7)  # the third time that branch 0 is submitted again
    done = farm.run("slurm", "--retries", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions()[0] == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_cannot_be_taken_out_of_the_queue_yet_has_no_successor(farm: Farm, kind: str) -> None:
    remove = "scancel" if kind == "slurm" else "condor_rm"
    farm.constants = {"tasks.remote_manager.MISSING_LIMIT": 1}
    if kind == "htcondor":
        farm.fail(1, "HELD")
    else:
        farm.fail(1, "vanish")
    farm.scheduler.set(f"fail_{remove}", 2)
    done = farm.run(kind, "--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 jobs cannot be taken out of the queue yet") == 2
    assert farm.scheduler.calls(remove) == 3
    first, second = [job for job in farm.scheduler.jobs() if farm.branch_of(job) == 1]
    assert first["state"] == "CANCELLED"
    assert second["state"] == "COMPLETED"
    assert farm.submissions() == ONCE | {1: 2}


def test_a_job_that_is_not_listed_for_a_while_is_waited_for(farm: Farm) -> None:
    farm.constants = {"tasks.remote_proxy.FIRST_PAUSE": 0.005}
    farm.fail(1, "RUNNING:4")
    process = farm.start("slurm", "--poll-interval", "5m", "--retries", "0")
    try:
        farm.scheduler.wait_for(lambda: farm.scheduler.calls("squeue") >= 1)
        before = farm.scheduler.calls("squeue")
        farm.scheduler.set("hidden", "-DownloadAOD-1-")
        farm.scheduler.wait_for(lambda: farm.scheduler.calls("squeue") >= before + 3)
        farm.scheduler.unset("hidden")
        assert process.wait(timeout=60) == 0, farm.said
    finally:
        kill_group(process)
    assert farm.submissions() == ONCE


def test_a_record_that_the_accounting_never_closed_is_not_waited_for(farm: Farm) -> None:
    farm.scheduler.set("min_job_age", 0)
    farm.scheduler.set("never_closed", "-DownloadAOD-2-")
    done = farm.run("slurm", "--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == ONCE


def test_a_final_state_in_the_queue_counts_more_than_accounting_that_lags_behind(farm: Farm) -> None:
    farm.fail(2, "exit:60")
    farm.scheduler.set("never_closed", "-DownloadAOD-2-")
    done = farm.run("slurm", "--retries", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == ONCE | {2: 2}
    assert "the task failed (exit code 60)" in done.stdout, "the controller knows the code before the accounting does"


def test_a_job_held_for_its_disk_gets_more(farm: Farm) -> None:
    farm.write_job(4, resources={"download": {"disk": 20}})
    farm.fail(1, "disk:50000", "disk:50000")
    done = farm.run("htcondor", "--retries", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert asked(farm, 1, "disk") == [20000, 40000, 80000]
    assert asked(farm, 0, "disk") == [20000]


def test_a_rerun_after_an_outage_searches_no_more_history_than_it_must(farm: Farm) -> None:
    farm.constants = FAST | {"tasks.remote_manager.PATIENCE": 2.0}
    farm.scheduler.set("fail_condor_submit", 99)
    farm.scheduler.set("long_history", "years")
    done = farm.run("htcondor")
    assert done.returncode == 40
    assert "no job was taken for 2 s" in done.stdout
    assert not farm.scheduler.jobs()
    farm.scheduler.set("fail_condor_submit", 0)
    done = farm.run("htcondor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == ONCE
    state = json.loads(next(farm.store.glob("DownloadAOD/*.work/*_jobs*.json")).read_text())
    assert {job["status"] for job in state["jobs"].values()} == {"finished"}
