"""A store, a job of a few downloads and a stand-in scheduler whose jobs take no time."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from support.schedulers.standin import StandIn
from support.small_job import kill_group

from pidml.law_command import law_command, law_environment

KINDS = ("slurm", "htcondor")


class Farm:
    """A job with some branches of DownloadAOD, a store and a stand-in scheduler."""

    def __init__(self, folder: Path, branches: int = 4) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.store.mkdir()
        self.scheduler = StandIn(folder / "spool", slots=4)
        self.scheduler.instead = self.scheduler.publish
        self.job = folder / "job.yaml"
        #: Numbers that runs of law are to have otherwise, such as ``tasks.remote_manager.PATIENCE``.
        self.constants: Mapping[str, float] = {}
        #: Branches of one job, as ``--tasks-per-job`` says.
        self.per_job = 1
        self.write_job(branches)

    def write_job(self, branches: int, first: int = 0, **settings: Any) -> None:
        self.branches = branches
        numbers = range(first, first + branches)
        files = [f"/alice/sim/2026/LHC26sandbox/0/1/AOD/{number:03d}/AO2D.root" for number in numbers]
        self.job.write_text(yaml.safe_dump({"dataset": {"files": files}, **settings}))

    def command(self, kind: str, *options: str) -> list[str]:
        given = ["--job", str(self.job), "--workflow", kind, "--poll-interval", "0.005", *options]
        command = law_command("DownloadAOD", given)
        if not self.constants:
            return command
        lines = ["import runpy, sys, tasks.remote", "sys.argv[0] = 'law'"]
        lines += [f"{name} = {value}" for name, value in self.constants.items()]
        return [sys.executable, "-c", "\n".join([*lines, "runpy.run_module('law', run_name='__main__')"]), *command[3:]]

    def environment(self, **extra: str) -> dict[str, str]:
        return law_environment(self.store) | self.scheduler.environment | extra

    def run(self, kind: str, *options: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(kind, *options), env=self.environment(**extra), cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        with (self.folder / "law.out").open("ab") as out:
            process = subprocess.Popen(
                self.command(kind, *options), env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self.scheduler.set("submitter", process.pid)
        return process

    def kill_one_that(self, kind: str, moment: str, *options: str, after: int = 2) -> None:
        """Start a run and kill it while it is ``submitting`` (after so many submissions) or ``polling``."""
        if moment == "submitting":
            self.scheduler.set("kill_submitter_at", after)
        process = self.start(kind, *options)
        try:
            if moment == "submitting":
                assert process.wait(timeout=60) == -signal.SIGKILL, self.said
                self.scheduler.unset("kill_submitter_at")
            else:
                query = "squeue" if kind == "slurm" else "condor_q"
                self.scheduler.wait_for(lambda: self.scheduler.calls(query) > 0)
        finally:
            kill_group(process)

    @property
    def said(self) -> str:
        """What started runs have printed."""
        return (self.folder / "law.out").read_text()

    def branch_of(self, job: dict[str, Any]) -> int:
        return int(job["name"].split("-")[2])

    def submissions(self) -> Counter[int]:
        """Branch → how often it was submitted."""
        return Counter(self.branch_of(job) for job in self.scheduler.jobs())

    def made(self) -> int:
        return len(list(self.store.glob("DownloadAOD/*/provenance.json")))

    def publish(self, job: dict[str, Any]) -> int:
        """Make the outputs of all branches of a job, as far as law can see."""
        first = self.branch_of(job)
        for branch in range(first, min(first + self.per_job, self.branches)):
            folder = self.store / "DownloadAOD" / self.addresses[branch]
            assert not folder.exists(), f"{folder} was made twice"
            folder.mkdir(parents=True)
            (folder / "provenance.json").write_text("{}")
        return 0

    def made_by_several(self, per_job: int) -> None:
        """Have jobs make several branches, one after the other."""
        from tasks.download import DownloadAOD

        self.per_job = per_job
        self.addresses = [DownloadAOD(job=str(self.job), branch=branch).digest for branch in range(self.branches)]
        self.scheduler.instead = self.publish

    def fail(self, branch: int, *attempts: str) -> None:
        self.scheduler.faults[f"-DownloadAOD-{branch}-"] = list(attempts)
