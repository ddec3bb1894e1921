"""What befalls jobs in a real Slurm of one node with accounting: suspended, its node gone, requests it cannot grant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.schedulers.real_slurm import RealSlurm
from support.schedulers.runs import Runs
from support.small_job import kill_group

from pidml.batch.probe import probe
from pidml.batch.site import Site
from pidml.errors import BatchError

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]


@pytest.fixture
def runs(slurm: RealSlurm, tmp_path: Path) -> Iterator[Runs]:
    made = Runs(slurm, tmp_path)
    yield made
    made.end()


def test_a_suspended_job_is_waited_for_and_one_whose_node_vanished_is_repeated(runs: Runs, slurm: RealSlurm) -> None:
    runs.write_job(files=1)
    runs.gate.touch()
    process = runs.start("--retries", "0")
    try:
        runs.wait_for_states("RUNNING")
        number = (slurm.ask("squeue", "--noheader", "--format=%A", f"--name={runs.jobs()[0][0]}") or "").strip()
        slurm.ask("scontrol", "suspend", number)
        runs.wait_for_states("SUSPENDED")
        asked = runs.said.count("all: 1,")
        slurm.wait_for(lambda: runs.said.count("all: 1,") > asked + 1)
        slurm.ask("scontrol", "resume", number)
        runs.wait_for_states("RUNNING")
        slurm.set_node("DOWN")
        slurm.wait_for(lambda: len(runs.jobs()) == 2)
        slurm.set_node("RESUME")
        runs.gate.unlink()
        assert process.wait(timeout=90) == 0, runs.said
    finally:
        kill_group(process)
        slurm.set_node("RESUME")
    assert runs.states() == ["NODE_FAIL", "COMPLETED"]


@pytest.mark.parametrize(
    ("settings", "environment", "text"),
    [
        ({}, {"PIDML_PARTITION": "nowhere"}, "Slurm has no partition 'nowhere'"),
        ({"time": 1}, {"PIDML_PARTITION": "short"}, "jobs ask for 1 h, partition short allows 0.5 h"),
        ({"gpus": 7}, {}, "Requested node configuration is not available"),
        ({"cores": 1000}, {}, "Slurm would not take jobs with 1000 cores"),
    ],
)
def test_what_slurm_cannot_grant_is_said_at_once(
    runs: Runs, settings: dict[str, float], environment: dict[str, str], text: str
) -> None:
    runs.write_job(files=1, **settings)
    done = runs.run(PIDML_SITE="slurm", **environment)
    assert done.returncode == 50
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not runs.jobs()


def test_a_node_that_does_not_see_the_store_is_told_from_others(
    runs: Runs, slurm: RealSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write_job(files=1)
    runs.store.mkdir()
    for key, value in slurm.environment.items():
        monkeypatch.setenv(key, value)
    with slurm.node_without(runs.store):
        with pytest.raises(BatchError, match=rf"does not see {runs.store}/\.batch/probe-") as error:
            probe(Site(workflow="slurm"), runs.store)
        assert "set PIDML_STORE to a folder that workers share" in error.value.hint
        done = runs.run("--retries", "0")
    assert done.returncode == 40
    assert "branch 0: the worker could not write the job's log: it must see the store" in done.stdout
    assert "no log was written: the worker may not see the store (`pidml doctor` asks one)" in done.stdout
    assert probe(Site(workflow="slurm"), runs.store).python


def test_the_exit_code_is_known_without_accounting(runs: Runs, slurm: RealSlurm) -> None:
    commands = runs.folder / "bin"
    commands.mkdir()
    (commands / "sacct").write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    (commands / "sacct").chmod(0o755)
    runs.write_job(files=1)
    runs.write_site(setup=["exit 9"])
    done = runs.run("--retries", "0", PATH=f"{commands}:{slurm.environment['PATH']}")
    assert done.returncode == 40
    assert "branch 0: the job script failed (exit code 9)" in done.stdout


@pytest.mark.soak
def test_a_job_over_its_time_gets_more(runs: Runs, slurm: RealSlurm) -> None:
    runs.write_job(files=1, time=0.01)
    runs.gate.touch()
    process = runs.start("--retries", "1")
    try:
        slurm.wait_for(lambda: len(runs.jobs()) == 2, seconds=150)
        runs.gate.unlink()
        assert process.wait(timeout=90) == 0, runs.said
    finally:
        kill_group(process)
    assert runs.states() == ["TIMEOUT", "COMPLETED"]
