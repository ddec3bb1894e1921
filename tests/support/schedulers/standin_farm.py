"""A store, a job of a few downloads and a stand-in scheduler whose jobs take no time."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from support.schedulers.standin import StandIn

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
        self.write_job(branches)

    def write_job(self, branches: int, first: int = 0, **settings: Any) -> None:
        numbers = range(first, first + branches)
        files = [f"/alice/sim/2026/LHC26sandbox/0/1/AOD/{number:03d}/AO2D.root" for number in numbers]
        self.job.write_text(yaml.safe_dump({"dataset": {"files": files}, **settings}))

    def command(self, kind: str, *options: str) -> list[str]:
        given = ["--job", str(self.job), "--workflow", kind, "--poll-interval", "0.005", *options]
        return law_command("DownloadAOD", given)

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

    def fail(self, branch: int, *attempts: str) -> None:
        self.scheduler.faults[f"-DownloadAOD-{branch}-"] = list(attempts)
