"""Steps on a batch system with stand-ins for its commands: what is submitted, retried, accepted, reported."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support.schedulers.standin_farm import KINDS, Farm
from support.small_job import kill_group


@pytest.mark.parametrize("kind", KINDS)
def test_every_branch_is_submitted_once_and_a_rerun_submits_nothing(farm: Farm, kind: str) -> None:
    done = farm.run(kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == {0: 1, 1: 1, 2: 1, 3: 1}
    calls = farm.scheduler.calls("sbatch"), farm.scheduler.calls("condor_submit")
    assert farm.run(kind).returncode == 0
    assert (farm.scheduler.calls("sbatch"), farm.scheduler.calls("condor_submit")) == calls


@pytest.mark.parametrize("kind", KINDS)
def test_memory_and_time_are_raised_after_a_kill(farm: Farm, kind: str) -> None:
    farm.fail(1, "memory:3000", "memory:3000")
    farm.fail(2, "minutes:400", "minutes:400")
    farm.write_job(4, resources={"download": {"memory": 2, "time": 4}})
    done = farm.run(kind)
    assert done.returncode == 0, done.stdout + done.stderr
    memory = {branch: [] for branch in range(4)}
    minutes = {branch: [] for branch in range(4)}
    for job in farm.scheduler.jobs():
        memory[farm.branch_of(job)].append(job["memory"])
        minutes[farm.branch_of(job)].append(job["minutes"])
    assert memory == {0: [2000], 1: [2000, 4000], 2: [2000, 2000], 3: [2000]}
    assert minutes == {0: [240], 1: [240, 240], 2: [240, 480], 3: [240]}


@pytest.mark.slow
def test_jobs_that_the_farm_lost_are_repeated_without_counting(farm: Farm) -> None:
    farm.fail(0, "NODE_FAIL", "PREEMPTED", "NODE_FAIL")
    farm.fail(1, "vanish")
    done = farm.run("slurm", "--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == {0: 4, 1: 2, 2: 1, 3: 1}


@pytest.mark.slow
def test_an_evicted_htcondor_job_is_left_to_htcondor_and_a_held_one_replaced(farm: Farm) -> None:
    farm.fail(0, "PREEMPTED")
    farm.fail(1, "HELD")
    done = farm.run("htcondor", "--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == {0: 1, 1: 2, 2: 1, 3: 1}
    states = [job["state"] for job in farm.scheduler.jobs() if farm.branch_of(job) == 1]
    assert states == ["CANCELLED", "COMPLETED"], "the held job must not wake up later"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_suspended_job_is_waited_for(farm: Farm, kind: str) -> None:
    farm.fail(2, "SUSPENDED:2")
    assert farm.run(kind, "--retries", "0").returncode == 0
    assert farm.submissions()[2] == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_failing_branch_is_tried_as_often_as_said_and_explained(farm: Farm, kind: str) -> None:
    farm.fail(2, *["exit:60"] * 9)
    # the others are still there when the job runs out of retries
    for branch in (0, 1, 3):
        farm.fail(branch, "RUNNING:4")
    done = farm.run(kind, "--retries", "1")
    assert done.returncode == 40
    assert farm.submissions() == {0: 1, 1: 1, 2: 2, 3: 1}, "neither too few attempts nor one too many"
    assert farm.made() == 3, "the other branches are made"
    last = max(job["id"] for job in farm.scheduler.jobs())
    assert "branch 2: the task failed (exit code 60) (2 attempts)" in done.stdout
    assert f"job {last if kind == 'slurm' else f'{last}.0'}, log {farm.store}/DownloadAOD/" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    # whoever mends the cause and runs again gets fresh attempts for what failed, and for nothing else
    farm.scheduler.faults.clear()
    assert farm.run(kind, "--retries", "0").returncode == 0
    assert farm.submissions() == {0: 1, 1: 1, 2: 3, 3: 1}


@pytest.mark.slow
def test_a_cancelled_job_is_not_submitted_again(farm: Farm) -> None:
    farm.fail(1, "CANCELLED")
    done = farm.run("slurm")
    assert done.returncode == 40
    assert "branch 1: CANCELLED" in done.stdout
    assert farm.submissions()[1] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--tolerance", "0.25"), 0),
        (("--tolerance", "1.5"), 0),
        (("--acceptance", "0.75"), 0),
        (("--tolerance", "0.2"), 40),
        (("--acceptance", "0.8"), 40),
        ((), 40),
    ],
)
def test_acceptance_and_tolerance_mean_what_they_say(farm: Farm, options: tuple[str, ...], code: int) -> None:
    farm.fail(3, *["exit:60"] * 9)
    done = farm.run("slurm", "--retries", "0", *options)
    assert done.returncode == code, done.stdout + done.stderr
    assert farm.made() == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_commands_that_fail_for_a_while_do_no_harm(farm: Farm, kind: str) -> None:
    for branch in range(4):
        farm.fail(branch, "RUNNING:3")
    process = farm.start(kind)
    try:
        farm.scheduler.wait_for(lambda: bool(farm.scheduler.jobs()))
        farm.scheduler.set("down")
        time.sleep(3)  # the length of the outage
        farm.scheduler.unset("down")
        assert process.wait(timeout=90) == 0, (farm.folder / "law.out").read_text()
    finally:
        kill_group(process)
    assert farm.submissions() == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_submission_whose_answer_was_lost_is_found_again(farm: Farm, kind: str) -> None:
    farm.scheduler.set("lose_answers", 2)
    done = farm.run(kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.slow
def test_without_accounting_the_outputs_decide(farm: Farm) -> None:
    farm.scheduler.set("accounting", "off")
    farm.scheduler.set("min_job_age", 0)
    done = farm.run("slurm", "--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [1, 3])
def test_a_submitter_killed_while_submitting_submits_nothing_twice(farm: Farm, kind: str, at: int) -> None:
    farm.kill_one_that(kind, "submitting", after=at)
    assert 1 <= len(farm.scheduler.jobs()) <= 4
    done = farm.run(kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_submitter_killed_while_polling_finds_its_jobs_again(farm: Farm, kind: str) -> None:
    for branch in (1, 2, 3):
        farm.fail(branch, "RUNNING:5")
    process = farm.start(kind)
    farm.scheduler.wait_for(lambda: farm.made() >= 1)
    query = "squeue" if kind == "slurm" else "condor_q"
    before = farm.scheduler.calls(query)
    farm.scheduler.wait_for(lambda: farm.scheduler.calls(query) > before)
    kill_group(process)
    done = farm.run(kind, "--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.submissions() == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.slow
def test_a_submitter_killed_while_retrying_keeps_count(farm: Farm) -> None:
    farm.fail(0, *["exit:60"] * 9)
    farm.kill_one_that("slurm", "submitting", "--retries", "2", after=6)  # the second retry of branch 0
    assert farm.run("slurm", "--retries", "2").returncode == 40
    assert farm.submissions()[0] == 3, "one attempt and two retries, over both processes"


@pytest.mark.slow
def test_only_one_submitter_at_a_time(farm: Farm) -> None:
    farm.fail(0, "RUNNING:8")
    process = farm.start("slurm")
    try:
        farm.scheduler.wait_for(lambda: bool(farm.scheduler.jobs()))
        second = farm.run("slurm")
        assert second.returncode == 40
        assert "another process looks after the jobs" in second.stdout
        assert process.wait(timeout=60) == 0
    finally:
        kill_group(process)
    assert farm.submissions() == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_secret_and_no_profile_reaches_a_job(farm: Farm, kind: str) -> None:
    done = farm.run(kind, MACHINE_SECRET_KEY="machine-key-1", PIDML_SERVER_TOKEN="admin-token-2", PIDML_GRID="sandbox")
    assert done.returncode == 0, done.stdout + done.stderr
    texts = [
        path.read_bytes()
        for folder in (farm.store, farm.scheduler.folder)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert not [text for text in texts if b"machine-key-1" in text or b"admin-token-2" in text]
    assert next(farm.store.glob("DownloadAOD/*.work/files")).stat().st_mode & 0o077 == 0


def test_job_files_lie_where_the_profile_says_and_stores_keep_apart(farm: Farm) -> None:
    site = farm.folder / "site.cfg"
    submit = farm.folder / "submit"
    site.write_text(f"[pidml_site]\nworkflow: htcondor\nsubmit_dir: {submit}\njob_flavour: shortest\n")
    done = farm.run("htcondor", PIDML_SITE=str(site))
    assert done.returncode == 0, done.stdout + done.stderr
    (values,) = {json.dumps(job["values"].get("log")) for job in farm.scheduler.jobs()}
    log = Path(json.loads(values))
    assert log.is_relative_to(submit), "the schedd writes its own log, and can"
    assert {job["values"]["+JobFlavour"] for job in farm.scheduler.jobs()} == {'"workday"'}
    assert all(Path(job["inputs"][0]).is_relative_to(submit) for job in farm.scheduler.jobs())
    assert not list(farm.store.glob("*/*.work/files")), "the scheduler cannot read the store"
    other = farm.folder / "other"
    assert farm.run("htcondor", PIDML_SITE=str(site), PIDML_STORE=str(other)).returncode == 0
    assert len(list(other.glob("DownloadAOD/*/provenance.json"))) == 4, "another store's jobs are others"
    assert len(list(submit.glob("*/DownloadAOD/*/*_jobs_*.json"))) == 2
