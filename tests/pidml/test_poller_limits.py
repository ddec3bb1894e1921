"""Limits of the machine: room on the disk, and the time of a job."""

import os
import subprocess

import pytest
from support.poller import failure_text, run
from support.schedulers.standin import StandIn

from pidml.alicetraint.jobs import job_directory
from pidml.batch.journal import Journal, new_token
from pidml.batch.registry import Registry
from pidml.errors import DiskFull
from pidml.server.protocol import TaskStatus


def test_files_larger_than_the_whole_disk_fail_at_once_and_say_why(machine):
    [task] = machine.queue(Size=2**62)
    assert run(machine).retries == 0
    assert "exceed this machine's whole disk" in failure_text(machine, task)


def test_too_little_room_is_waited_for_and_then_said(machine, monkeypatch):
    total = os.statvfs(machine.settings.store.parent)
    room = total.f_bavail * total.f_frsize
    [task] = machine.queue(Size=int(room * 0.95))
    counts = run(machine)
    assert counts.retries == 3
    assert "are free for" in failure_text(machine, task)
    assert not job_directory(machine.settings.store, task).log_file.exists(), "it was never started"


def test_nothing_is_claimed_without_room(machine):
    [task] = machine.queue()
    with pytest.raises(DiskFull, match="must stay free"):
        run(machine.with_limits(min_free=2**60))
    assert machine.status(task) is TaskStatus.QUEUED


def test_a_disk_that_fills_up_ends_the_job(machine, plan, monkeypatch):
    plan(seconds=30)
    [task] = machine.queue()
    answers = iter([2**40] * 8)
    monkeypatch.setattr("pidml.poller.disk.free_bytes", lambda store: next(answers, 0))
    limited = machine.with_limits(min_free=1, attempts=1)
    counts = run(limited, once=True, drain=False)
    assert counts.failed == 1
    assert "[P201]" in failure_text(machine, task)


def test_a_job_that_runs_too_long_is_ended(machine, plan):
    plan(seconds=60)
    [task] = machine.queue()
    counts = run(machine.with_limits(wall_clock=0.5))
    assert counts.failed == 1
    assert "ran longer than" in failure_text(machine, task)


def batch_job(store, task):
    """Submit a job as a step of a task would, and write it down likewise; returns the file that tells of it."""
    token, work = new_token("Train", 0, "0123456789ab"), store / "Train" / "0123456789ab.work"
    work.mkdir(parents=True, exist_ok=True)
    lines = [f"job-name={token}", f"output={work}/log", "mem=1000M", "time=60", "cpus-per-task=1"]
    (work / "job.sh").write_text("\n".join(["#!/bin/sh", *(f"#SBATCH --{line}" for line in lines), ""]))
    answer = subprocess.run(["sbatch", str(work / "job.sh")], capture_output=True, text=True, check=True).stdout
    Journal(work / f"{task}.jsonl").submitted(token, int(answer.split()[-1]))
    folder = store / ".batch" / "Train"
    folder.mkdir(parents=True, exist_ok=True)
    registry = Registry(folder, f"task-{task}", work / f"{task}.json", "slurm", work / f"{task}.jsonl")
    registry.write({token: ["0123456789ab"]})
    return registry.path


def test_a_job_that_runs_too_long_leaves_nothing_on_the_batch_system(machine, plan, tmp_path, monkeypatch):
    plan(seconds=60)
    [task] = machine.queue()
    scheduler = StandIn(tmp_path / "spool", slots=4)
    scheduler.faults["Train"] = ["RUNNING:60"] * 2
    monkeypatch.setenv("PATH", scheduler.environment["PATH"])
    with scheduler.running():
        own, other = (batch_job(machine.settings.store, number) for number in (task, task + 1))
        assert run(machine.with_limits(wall_clock=0.5)).failed == 1
        scheduler.wait_for(lambda: scheduler.jobs()[0]["state"] == "CANCELLED")
        assert scheduler.jobs()[1]["state"] == "RUNNING", "that of another task"
    assert not own.exists()
    assert other.exists()
