"""What schedulers say is understood: states, reasons, exit codes, accounting, and what a job is told."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pidml.batch import commands, htcondor, preflight, slurm
from pidml.batch.asking import parse_resources, resources_of
from pidml.batch.disks import mount_of
from pidml.batch.journal import Journal
from pidml.batch.site import Site, profile_names, read_profile
from pidml.batch.status import Cause, State
from pidml.batch.submission import htcondor_lines, raised, slurm_lines
from pidml.batch.summary import summary_lines
from pidml.errors import BatchError, ConfigError, DiskFull, ToolMissing
from pidml.spec import parse_job
from pidml.spec.resources_section import StepResources


@pytest.mark.parametrize(
    ("state", "expected", "cause"),
    [
        ("PENDING", State.pending, Cause.none),
        ("REQUEUED", State.pending, Cause.none),
        ("CONFIGURING", State.pending, Cause.none),
        ("RUNNING", State.running, Cause.none),
        ("COMPLETING", State.running, Cause.none),
        ("SUSPENDED", State.running, Cause.none),
        ("STOPPED", State.running, Cause.none),
        ("COMPLETED", State.finished, Cause.none),
        ("OUT_OF_MEMORY", State.failed, Cause.memory),
        ("TIMEOUT", State.failed, Cause.time),
        ("DEADLINE", State.failed, Cause.time),
        ("PREEMPTED", State.failed, Cause.lost),
        ("NODE_FAIL", State.failed, Cause.lost),
        ("BOOT_FAIL", State.failed, Cause.lost),
        ("CANCELLED", State.failed, Cause.cancelled),
        ("CANCELLED+", State.failed, Cause.cancelled),
        ("CANCELLED by 1000", State.failed, Cause.cancelled),
        ("FAILED", State.failed, Cause.task),
        ("SOMETHING_NEW", State.failed, Cause.task),
        ("", State.failed, Cause.task),
    ],
)
def test_states_of_slurm(state: str, expected: State, cause: Cause) -> None:
    status = slurm.classify(state)
    assert (status.state, status.cause) == (expected, cause)


@pytest.mark.parametrize("reason", ["Resources", "Priority", "QOSMaxCpuPerUserLimit", "JobHeldUser", "None"])
def test_pending_jobs_wait(reason: str) -> None:
    assert slurm.classify("PENDING", reason=reason).state is State.pending


@pytest.mark.parametrize("reason", ["BadConstraints", "PartitionTimeLimit", "DependencyNeverSatisfied"])
def test_jobs_that_never_start_are_taken_out(reason: str) -> None:
    status = slurm.classify("PENDING", reason=reason)
    assert status.cause is Cause.impossible
    assert status.remove


def test_accounting_of_slurm() -> None:
    out = (
        "17|COMPLETED|0:0|None|node[1-2]\n18|FAILED|60:0|NonZeroExitCode|node1\n19|CANCELLED by 0|0:15|None|node1\n"
        "20|FAILED|0:9|None|node1\n21|FAILED|0:125|OutOfMemory|node1\ngarbage\n22.batch|RUNNING|0:0|None|x\n"
    )
    found = slurm.parse_sacct(out)
    assert list(found) == [17, 18, 19, 20, 21]
    assert found[17].state is State.finished
    assert found[18].reason == "the task failed (exit code 60)"
    assert found[19].cause is Cause.cancelled
    assert found[20].reason == "killed by signal 9"
    assert found[21].cause is Cause.memory


@pytest.mark.parametrize(
    ("ad", "expected", "cause", "remove"),
    [
        ({"JobStatus": 1}, State.pending, Cause.none, False),
        ({"JobStatus": 1, "NumJobStarts": 2}, State.pending, Cause.none, False),
        ({"JobStatus": 2, "RemoteHost": "slot1@b1"}, State.running, Cause.none, False),
        ({"JobStatus": 6}, State.running, Cause.none, False),
        ({"JobStatus": 7}, State.running, Cause.none, False),
        ({"JobStatus": 4, "ExitCode": 0}, State.finished, Cause.none, False),
        ({"JobStatus": 4, "ExitCode": 60}, State.failed, Cause.task, False),
        ({"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 9}, State.failed, Cause.task, False),
        ({"JobStatus": 5, "HoldReasonCode": 1, "HoldReason": "via condor_hold"}, State.pending, Cause.none, False),
        ({"JobStatus": 5, "HoldReasonCode": 34, "HoldReason": "gone over"}, State.failed, Cause.memory, True),
        ({"JobStatus": 5, "HoldReasonCode": 26, "HoldReason": "memory usage above"}, State.failed, Cause.memory, True),
        ({"JobStatus": 5, "HoldReasonCode": 47, "HoldReason": "x"}, State.failed, Cause.time, True),
        ({"JobStatus": 5, "HoldReasonCode": 13, "HoldReason": "Transfer output"}, State.failed, Cause.lost, True),
        ({"JobStatus": 5, "HoldReasonCode": 21, "HoldReason": "disk usage exceeded"}, State.failed, Cause.disk, True),
        (
            {"JobStatus": 5, "HoldReasonCode": 34, "HoldReason": "Job has gone over request_disk"},
            State.failed,
            Cause.disk,
            True,
        ),
        ({"JobStatus": 3, "RemoveReason": "via condor_rm (by user a)"}, State.failed, Cause.cancelled, False),
        (
            {"JobStatus": 3, "RemoveReason": "Job removed by SYSTEM_PERIODIC_REMOVE due to wall time exceeded"},
            State.failed,
            Cause.time,
            False,
        ),
        ({}, State.failed, Cause.lost, False),
    ],
)
def test_states_of_htcondor(ad: dict[str, object], expected: State, cause: Cause, remove: bool) -> None:
    status = htcondor.classify(ad)
    assert (status.state, status.cause, status.remove) == (expected, cause, remove)
    assert status.state is not State.failed or status.reason


def test_commands_that_are_missing_or_fail_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="Slurm: not found on this machine: sbatch, squeue, scancel"):
        commands.require_commands(slurm.COMMANDS, "Slurm")
    with pytest.raises(ToolMissing, match="squeue"):
        slurm.query([1])
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Socket timed out' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(BatchError, match="squeue failed with code 1: slurm_load_jobs error: Socket timed out"):
        slurm.query([1])


def test_a_journal_survives_half_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "submitted.jsonl")
    assert journal.known() == {}
    journal.submitted("a", 1)
    journal.submitted("b", "2.0")
    with journal.path.open("a") as stream:
        stream.write('{"token": "c", "i')
    assert journal.known() == {"a": 1, "b": "2.0"}


def test_resources_are_raised_within_the_sites_limits() -> None:
    asked = StepResources(memory=2.0, time=4.0, disk=10.0)
    assert raised(asked, Site(), {}) == (2000, 240, 10000)
    assert raised(asked, Site(), {"memory": 4.0, "time": 2.0, "disk": 2.0}) == (8000, 480, 20000)
    limited = Site(max_memory=3.0, max_time=6.0)
    assert raised(asked, limited, {"memory": 4.0, "time": 2.0}) == (3000, 360, 10000)
    assert raised(asked, limited, {"time": 2.0}, branches=3) == (2000, 720, 10000), "never less than was asked for"
    assert raised(asked, Site(max_time=20.0), {"time": 2.0}, branches=3) == (2000, 1200, 10000)


def test_job_files_say_what_was_asked_for() -> None:
    asked = StepResources(cores=3, memory=1.5, disk=2.0, time=1.0, gpus=2)
    site = Site(account="alice", qos="long", options=("--constraint=avx512",))
    lines = slurm_lines(asked, site, {}, 2)
    for line in [("cpus-per-task", 3), ("mem", "1500M"), ("time", 120), ("gres", "gpu:2"), ("account", "alice")]:
        assert line in lines
    assert "#SBATCH --constraint=avx512" in lines
    condor = dict(htcondor_lines(asked, Site(account="group_u", options=("requirements = x == 1",)), {}, 1, "a-b-c-d"))
    assert condor["request_memory"] == "1500 MB"
    assert condor["request_gpus"] == 2
    assert condor["requirements"] == "x == 1"
    assert condor["allowed_execute_duration"] == 3600
    cern = dict(htcondor_lines(asked, read_profile("lxplus"), {"time": 16.0}, 1, "a-b-c-d"))
    assert cern["+JobFlavour"] == '"tomorrow"'
    assert cern["MY.SendCredential"] == "True"
    assert "allowed_execute_duration" not in cern
    chosen = dict(htcondor_lines(asked, Site(job_flavour="workday"), {"time": 16.0}, 1, "a-b-c-d"))
    assert chosen["+JobFlavour"] == '"workday"'


@pytest.mark.parametrize("name", profile_names())
def test_profiles_that_come_with_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIDML_ACCOUNT", raising=False)
    assert read_profile(name).account == ""
    monkeypatch.setenv("PIDML_ACCOUNT", "group_u_ALICE.u_z2")
    assert read_profile(name).account == ("" if name == "local" else "group_u_ALICE.u_z2")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[pidml_site]\nworkflow: pbs", "workflow = 'pbs'"),
        ("[pidml_site]\npartitoin: long", "unknown option 'partitoin'"),
        ("[pidml_site]\njob_flavour: workdya", "job_flavour = 'workdya'"),
        ("[pidml_site]\nmax_time: -1", "max_time = '-1' is not a number"),
        ("[pidml_site]\nmax_memory: nan", "max_memory = 'nan' is not a number"),
        ("[pidml_site]\nresources: train gpus 1", "'train gpus 1'"),
        ("[pidml_site]\nresources: train.gpu = 1", "train.gpu: unknown"),
        ("[pidml_site]\nresources: tune.gpus = 1", "tune: unknown"),
        ("[pidml_site]\nresources: train.gpus = many", "train.gpus = 'many'"),
        ("[pidml_site]\nresources: train.memory = -1", "train.memory = -1"),
        ("[other]\na: b", "no section"),
        ("workflow: slurm", "cannot be read"),
    ],
)
def test_bad_profiles_are_explained(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "site.cfg"
    path.write_text(text)
    with pytest.raises(ConfigError, match=error) as caught:
        read_profile(str(path))
    assert str(path) in caught.value.what


def test_unknown_profiles_are_explained() -> None:
    for name in ("slrum", "../jobs/attention", "/nowhere/site.cfg"):
        with pytest.raises(ConfigError, match="there is no profile") as caught:
            read_profile(name)
        assert "lxplus" in caught.value.hint


def test_a_store_that_workers_cannot_see_is_refused(tmp_path: Path) -> None:
    site = Site(workflow="slurm", shared=("/nfs", "/eos"))
    with pytest.raises(ConfigError, match="not on a file system that workers share"):
        preflight.check_store(site, tmp_path)
    preflight.check_store(Site(workflow="slurm", shared=(str(tmp_path.parent),)), tmp_path)
    if mount_of(Path("/dev/shm")).kind == "tmpfs":
        folder = Path("/dev/shm") / f"pidml-test-{tmp_path.name}-{id(tmp_path)}"
        folder.mkdir()
        try:
            with pytest.raises(ConfigError, match="lies in this machine's memory"):
                preflight.check_store(Site(workflow="htcondor"), folder)
            preflight.check_store(Site(), folder)
        finally:
            folder.rmdir()


def test_several_runs_check_the_store_at_the_same_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: preflight.check_store(Site(), tmp_path), range(100)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC])
def test_a_full_quota_is_said_before_anything_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(tmp_path))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFull) as error:
        preflight.check_site(Site(workflow="slurm"), tmp_path)
    assert str(tmp_path) in error.value.what


def test_the_summary_names_branches_reasons_and_logs(tmp_path: Path) -> None:
    log = tmp_path / "a.job.log"
    log.write_text("noise\npidml: node7 does not see the store /data: it must be on a shared file system\nmore noise\n")
    failed = {
        number: {"branches": [number], "job_id": 100 + number, "error": "exit 20", "extra": {"log": str(log)}}
        for number in range(30)
    }
    lines = summary_lines("Train", failed, {})
    assert lines[0] == "===== Train: 30 failed job(s)"
    assert lines[1:4] == [
        "branch 0: exit 20",
        "    pidml: node7 does not see the store /data: it must be on a shared file system",
        f"    job 100, log {log}",
    ]
    log.unlink()
    assert "    no log was written: the worker may not see the store" in summary_lines("Train", failed, {})[2]
    assert lines[-1] == "… and branches 20, 21, 22, 23, 24, 25, 26, 27, 28, 29"


def test_the_job_counts_more_than_the_profile_and_that_more_than_the_defaults() -> None:
    profile = parse_resources(("train.gpus = 1", "train.memory = 16", "download.time = 0.5"), "site.cfg")
    job = parse_job({"resources": {"train": {"memory": 4}}}, "test").resources
    train = resources_of(job, "train", profile)
    assert (train.gpus, train.memory, train.cores, train.time) == (1, 4.0, 4, 12.0)
    assert resources_of(job, "download", profile).time == 0.5
    assert resources_of(job, "produce", profile) == job.produce


def test_resources_in_a_job_file_have_limits() -> None:
    job = parse_job({"resources": {"train": {"gpus": 2, "time": 24}}}, "test")
    assert job.resources.train.gpus == 2
    assert job.resources.train.memory == 8.0
