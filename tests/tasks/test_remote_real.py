"""Submitters and workers killed, and commands failing, on real schedulers: nothing is submitted or made twice."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.schedulers.runs import Runs
from support.schedulers.sabotage import Sabotage
from support.small_job import kill_group

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]
BRANCHES = {f"DownloadAOD-{branch}": 1 for branch in range(4)}
#: Scheduler → what it answers to a submission, while a job runs, and when one has ended well.
ANSWERS = {
    "slurm": {
        "submission": ("sbatch", "Submitted"),
        "polling": ("squeue", "RUNNING"),
        "collection": ("squeue", "COMPLETED"),
    },
    "htcondor": {
        "submission": ("condor_submit", "submitted to cluster"),
        "polling": ("condor_q", '"JobStatus": 2'),
        "collection": ("condor_history", '"JobStatus": 4'),
    },
}


@pytest.fixture(params=["slurm", "htcondor"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runs]:
    made = Runs(request.getfixturevalue(request.param), tmp_path)
    yield made
    made.end()


def made(runs: Runs) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in runs.store.glob("DownloadAOD/*/provenance.json")}


def test_a_submitter_killed_while_submitting_polling_and_collecting(runs: Runs, tmp_path: Path) -> None:
    runs.write_job()
    runs.gate.touch()
    sabotage = Sabotage(tmp_path / "sabotage", runs.scheduler)
    for moment, (command, answer) in ANSWERS[runs.scheduler.kind].items():
        process = runs.start(**sabotage.environment)
        try:
            sabotage.kill_submitter(process.pid, command, answer)
            if moment == "collection":
                runs.gate.unlink()
            assert process.wait(timeout=60) == -signal.SIGKILL, f"{moment}: {runs.said}"
        finally:
            kill_group(process)
    before = made(runs)
    assert before, "something had completed when the last one was killed"
    done = runs.run("--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs.submissions() == BRANCHES
    assert made(runs).items() >= before.items(), "what had completed is not made again"


def test_a_killed_worker_is_tried_again(runs: Runs) -> None:
    runs.write_job(files=2)
    runs.gate.touch()
    process = runs.start()
    try:
        runs.scheduler.wait_for(lambda: bool(runs.scheduler.processes()))
        os.kill(runs.scheduler.processes()[0], signal.SIGKILL)
        runs.scheduler.wait_for(lambda: len(runs.jobs()) == 3)
        runs.gate.unlink()
        assert process.wait(timeout=90) == 0, runs.said
    finally:
        kill_group(process)
    assert sorted(runs.submissions().values()) == [1, 2]
    assert len(made(runs)) == 2


@pytest.mark.soak
def test_commands_that_fail_for_a_minute_do_no_harm(runs: Runs, tmp_path: Path) -> None:
    runs.write_job()
    runs.gate.touch()
    sabotage = Sabotage(tmp_path / "sabotage", runs.scheduler)
    process = runs.start(**sabotage.environment)
    try:
        runs.scheduler.wait_for(lambda: bool(runs.jobs()))
        sabotage.down()
        runs.gate.unlink()
        time.sleep(60)  # the length of the outage
        sabotage.up()
        assert process.wait(timeout=120) == 0, runs.said
    finally:
        kill_group(process)
    assert runs.submissions() == BRANCHES


def test_a_job_removed_by_a_person_is_not_submitted_again(runs: Runs) -> None:
    runs.write_job(files=1)
    runs.gate.touch()
    process = runs.start()
    try:
        runs.wait_for_states("RUNNING")  # accounting learns of a job after it has started
        runs.scheduler.remove(runs.jobs()[0][0])
        assert process.wait(timeout=60) == 40
    finally:
        kill_group(process)
    said = {"slurm": "branch 0: CANCELLED", "htcondor": "branch 0: via condor_rm (by user"}
    assert said[runs.scheduler.kind] in runs.said
    assert len(runs.jobs()) == 1


def test_memory_is_raised_after_a_job_was_ended_for_it(runs: Runs) -> None:
    runs.write_job(files=1, memory=0.05)
    # more than asked for, for as long as the scheduler may take to notice
    runs.write_site(setup=[f'{sys.executable} -c "import time; held = bytearray(80_000_000); time.sleep(5)"'])
    done = runs.run("--retries", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = runs.scheduler.memory_asked(runs.store)
    assert len(asked) >= 2
    assert asked == [50 * 2**attempt for attempt in range(len(asked))]
    assert runs.states()[-1] == "COMPLETED"
