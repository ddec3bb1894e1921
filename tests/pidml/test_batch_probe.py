"""What ``pidml doctor`` says about the batch system of a profile: a probe job runs on a worker, or it says why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.schedulers.daemons import Daemons
from support.schedulers.standin import StandIn

from pidml.batch.disks import mount_of
from pidml.batch.probe import MODULES, probe
from pidml.batch.site import Site, profile_names, read_profile
from pidml.errors import BatchError
from pidml.poller.checks import Check, quota_checks, site_checks

KINDS = ("slurm", "htcondor")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    made = StandIn(tmp_path / "spool")
    for key, value in made.environment.items():
        monkeypatch.setenv(key, value)
    with made.running():
        yield made


def profile(tmp_path: Path, **options: str) -> str:
    path = tmp_path / "site.cfg"
    path.write_text("\n".join(["[pidml_site]", *(f"{key}: {value}" for key, value in options.items()), ""]))
    return str(path)


def seen(name: str, store: Path, patience: float = 30.0) -> dict[str, Check]:
    checks = list(site_checks(name, store, patience))
    assert all(check.advice for check in checks if check.outcome != "ok"), "says what to do"
    return {check.name: check for check in checks}


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_answers(scheduler: StandIn, store: Path, tmp_path: Path, kind: str) -> None:
    found = seen(profile(tmp_path, workflow=kind, shared=str(tmp_path)), store)
    assert [check.outcome for check in found.values()] == ["ok"] * 4, found
    assert f"Python {sys.version.split()[0]}, torch 2." in found["worker"].found
    assert not list((store / ".batch").iterdir()), "nothing is left behind"


@pytest.mark.scheduler
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_real_worker_answers(
    kind: str, store: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Daemons = request.getfixturevalue(kind)
    for key, value in real.environment.items():
        monkeypatch.setenv(key, value)
    found = seen(profile(tmp_path, workflow=kind), store, patience=60.0)
    assert found["worker"].outcome == "ok", found
    found = seen(profile(tmp_path, workflow=kind, setup="source /nowhere/setup.sh"), store, patience=60.0)
    assert "the commands of `setup` in the profile failed" in found["worker"].found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("setup", "modules", "text"),
    [
        (("source /nowhere/setup.sh",), MODULES, "the commands of `setup` in the profile failed"),
        ((), ("law", "no_such_package"), "Python packages are missing: no_such_package"),
        (("export PIDML_STORE=/nowhere",), MODULES, "does not see the store /nowhere"),
    ],
)
def test_a_worker_that_cannot_run_jobs_is_explained(
    scheduler: StandIn, store: Path, kind: str, setup: tuple[str, ...], modules: tuple[str, ...], text: str
) -> None:
    with pytest.raises(BatchError, match=r"the probe job .* failed: pidml: ") as error:
        probe(Site(workflow=kind, setup=setup), store, 30.0, modules)
    assert text in error.value.what
    log = Path(error.value.hint.rpartition(" ")[2])
    assert text in log.read_text(), "the log is kept"


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_queue_is_not_waited_for_without_end(scheduler: StandIn, store: Path, tmp_path: Path, kind: str) -> None:
    scheduler.slots = 0
    found = seen(profile(tmp_path, workflow=kind), store, patience=1.0)
    assert found["worker"].outcome == "failed"
    assert "is still pending" in found["worker"].found
    scheduler.wait_for(lambda: [job["state"] for job in scheduler.jobs()] == ["CANCELLED"])


def test_what_a_profile_lacks_is_said_before_anything_is_submitted(
    scheduler: StandIn, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = seen(profile(tmp_path, workflow="slurm", partition="nowhere"), store)["jobs"]
    assert found.found == "download, produce, train, apply: Slurm has no partition 'nowhere'"
    assert (
        "not on a file system that workers share"
        in seen(profile(tmp_path, workflow="slurm", shared="/nfs"), store)["scheduler"].found
    )
    scheduler.set("down")
    assert seen(profile(tmp_path, workflow="htcondor"), store)["scheduler"].outcome == "failed"
    assert "there is no profile" in seen("pbs", store)["scheduler"].found
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not found on this machine" in seen(profile(tmp_path, workflow="slurm"), store)["scheduler"].found
    assert not scheduler.jobs()


def test_steps_whose_jobs_would_not_be_taken_are_named(scheduler: StandIn, store: Path, tmp_path: Path) -> None:
    scheduler.slots = 0
    scheduler.set("partitions", "main*|8:00:00|(null)")
    found = seen(profile(tmp_path, workflow="slurm", resources="train.cores = 2"), store, 0.1)["jobs"]
    assert found.found == "train: jobs ask for 12 h, partition main allows 8 h", "the default of training"
    scheduler.set("refuse", "Invalid qos specification")
    found = seen(profile(tmp_path, workflow="slurm", resources="train.time = 8", qos="lost"), store, 0.1)["jobs"]
    assert "Invalid qos specification" in found.found
    scheduler.unset("refuse")
    scheduler.set("slots", "1 2000 1.0E+09 undefined")
    found = seen(profile(tmp_path, workflow="htcondor"), store, 0.1)["jobs"]
    assert "train: no slot of the pool fits jobs with 4 cores, 8 GB" in found.found


def test_quotas_are_shown_where_a_command_tells_of_them(
    scheduler: StandIn, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(quota_checks(store)) == []
    program = scheduler.folder / "bin" / "quota"
    device = mount_of(store.resolve()).device
    program.write_text(f"#!/bin/sh\nprintf 'Filesystem blocks quota limit grace\\n{device} $USED 0 10485760 0\\n'\n")
    program.write_text(program.read_text().replace("$USED", "'$USED'"))
    program.chmod(0o755)
    for used, outcome in ((1048576, "ok"), (10000000, "warning"), (10485760, "failed")):
        monkeypatch.setenv("USED", str(used))
        (check,) = quota_checks(store)
        assert (check.name, check.outcome, bool(check.advice)) == ("quota", outcome, outcome != "ok")
        assert f"{used / 2**20:.1f} of 10.0 GiB used for {store} (`quota`)" in check.found
    monkeypatch.setenv("USED", "1048576")
    found = seen(profile(tmp_path, workflow="htcondor", submit_dir=str(tmp_path / "submit")), store)
    assert f"used for {tmp_path / 'submit'}" in found["quota"].found


def test_the_profile_of_this_machine_needs_no_batch_system(store: Path) -> None:
    assert "local" in profile_names()
    assert read_profile("local").workflow == "local"
    assert [check.found for check in site_checks("local", store)] == ["profile local: jobs run here"]
    assert not list(store.iterdir())
