"""What befalls jobs in a real HTCondor pool: held, evicted, suspended, over their time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.schedulers.real_htcondor import RealHTCondor
from support.schedulers.runs import Runs
from support.small_job import kill_group

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]


@pytest.fixture
def runs(htcondor: RealHTCondor, tmp_path: Path) -> Iterator[Runs]:
    made = Runs(htcondor, tmp_path)
    yield made
    made.end()


def test_jobs_that_a_person_holds_or_moves_are_waited_for(runs: Runs, htcondor: RealHTCondor) -> None:
    runs.write_job(files=1)
    runs.gate.touch()
    process = runs.start()
    try:
        runs.wait_for_states("RUNNING")
        (number,) = htcondor.numbers(runs.jobs()[0][0])
        for command, state in (
            ("condor_suspend", "SUSPENDED"),
            ("condor_continue", "RUNNING"),
            ("condor_hold", "HELD"),
        ):
            htcondor.ask(command, number)
            runs.wait_for_states(state)
            asked = runs.said.count("all: 1,")
            htcondor.wait_for(lambda asked=asked: runs.said.count("all: 1,") > asked + 1)
        htcondor.ask("condor_release", number)
        runs.wait_for_states("RUNNING")
        htcondor.wait_for(lambda: len(htcondor.processes()) == 1)
        (before,) = htcondor.processes()
        htcondor.ask("condor_vacate_job", "-fast", number)
        htcondor.wait_for(lambda: before not in htcondor.processes() != [])
        runs.gate.unlink()
        assert process.wait(timeout=90) == 0, runs.said
    finally:
        kill_group(process)
    assert runs.states() == ["COMPLETED"], "one submission, whatever happened to it"


def test_a_job_held_by_the_farm_is_removed_and_submitted_again(runs: Runs, htcondor: RealHTCondor) -> None:
    runs.write_job(files=1)
    last = max([int(str(ad["ClusterId"])) for ad in htcondor.all_ads()], default=0)
    reason = 'periodic_hold_reason = "Transfer output files failure at the execution point"'
    runs.write_site(options=[f"periodic_hold = ClusterId <= {last + 2}", reason])
    done = runs.run("--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs.states() == ["REMOVED", "REMOVED", "COMPLETED"]


@pytest.mark.soak
def test_a_job_over_its_time_gets_more(runs: Runs, htcondor: RealHTCondor) -> None:
    runs.write_job(files=1, time=0.01)
    runs.gate.touch()
    process = runs.start()
    try:
        htcondor.wait_for(lambda: len(runs.jobs()) == 2, seconds=120)
        runs.gate.unlink()
        assert process.wait(timeout=90) == 0, runs.said
    finally:
        kill_group(process)
    asked = [int(str(ad["AllowedExecuteDuration"])) for ad in htcondor.all_ads("AllowedExecuteDuration")[-2:]]
    assert asked == [60, 120]
    assert runs.states() == ["REMOVED", "COMPLETED"]


def test_job_files_and_the_pool_s_own_log_lie_where_the_profile_says(runs: Runs, htcondor: RealHTCondor) -> None:
    runs.write_job(files=1)
    submit = runs.folder / "submit"
    runs.write_site(submit_dir=str(submit), job_flavour="shortest")
    done = runs.run("--retries", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    ad = htcondor.all_ads("JobFlavour", "UserLog")[-1]
    assert ad["JobFlavour"] == "workday"
    assert Path(str(ad["UserLog"])).is_relative_to(submit)
    assert "Job terminated" in Path(str(ad["UserLog"])).read_text()
