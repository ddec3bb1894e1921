"""A stand-in scheduler: commands that behave like Slurm's and HTCondor's, and jobs that really run.

The commands on ``PATH`` write job records into a folder; a thread of the test process starts the jobs as processes of
their own, in the environment that the real scheduler would give them, and lets tests make them fail in the ways in
which jobs fail on farms.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.schedulers import spool

_SLURM = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo")
_CONDOR = ("condor_submit", "condor_q", "condor_history", "condor_rm", "condor_status", "condor_version")


@dataclass
class StandIn:
    """The scheduler.

    Args:
        folder: where it keeps everything.
        slots: jobs that run at a time.
        instead: called for each job instead of starting it, for measurements; returns the exit code.
    """

    folder: Path
    slots: int = 2
    instead: Callable[[dict[str, Any]], int] | None = None
    #: Pattern of job names → what befalls the attempts, one after the other: a state such as ``NODE_FAIL`` or ``HELD``,
    #: ``memory:3000`` or ``disk:30000`` (MB that it really needs; disk on HTCondor), ``minutes:90``, ``exit:60``,
    #: ``vanish``, ``SUSPENDED:2`` or ``RUNNING:2`` (for so many seconds before it does anything), or "" for nothing.
    faults: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("jobs", "new", "cancel", "scripts", "settings", "scratch", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for module, names in (("slurm_commands", _SLURM), ("condor_commands", _CONDOR)):
            for name in names:
                self._write_command(name, Path(__file__).with_name(f"{module}.py"))
        self._jobs: dict[int, dict[str, Any]] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._waiting: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="stand-in scheduler", daemon=True)

    def _write_command(self, name: str, module: Path) -> None:
        path = self.folder / "bin" / name
        path.write_text(
            f"#!/bin/sh\nSTANDIN_SPOOL='{self.folder}' PYTHONDONTWRITEBYTECODE=1 "
            f"exec '{sys.executable}' -S '{module}' {name} \"$@\"\n"
        )
        path.chmod(0o755)

    # For tests.

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the submitting process."""
        return {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "STANDIN_SPOOL": str(self.folder)}

    def set(self, name: str, value: object = "") -> None:
        """Change the behaviour of the commands."""
        (self.folder / "settings" / name).write_text(str(value))

    def unset(self, name: str) -> None:
        """Take a change back."""
        (self.folder / "settings" / name).unlink(missing_ok=True)

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs that were ever submitted."""
        known = dict(self._jobs) | {job["id"]: job for job in spool.all_jobs(self.folder)}
        return [known[number] for number in sorted(known)]

    def calls(self, command: str) -> int:
        """Return how often a command was called."""
        path = self.folder / "calls"
        return sum(line.split()[1] == command for line in path.read_text().splitlines()) if path.exists() else 0

    def processes(self) -> dict[int, int]:
        """Return job → process id of jobs that run now."""
        return {number: process.pid for number, process in self._processes.items() if process.poll() is None}

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until something is true."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited too long"
            self._stop.wait(0.02)

    def publish(self, job: dict[str, Any]) -> int:
        """Make the output of a job's branch as far as law can see; for tests of what surrounds the jobs."""
        script = Path(job["command"][-1] if job["kind"] == "slurm" else job["inputs"][0]).read_text()
        log = Path(re.search(r"[^\s=\"]+\.job\.log", script).group())  # type: ignore[union-attr]
        folder = log.with_name(log.name.removesuffix(".job.log"))
        assert not folder.exists(), f"{folder} was made twice"
        folder.mkdir(parents=True)
        (folder / "provenance.json").write_text("{}")
        return 0

    @contextmanager
    def running(self) -> Iterator[StandIn]:
        """Run the scheduler; its jobs are ended with it."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join(timeout=30)
            for process in self._processes.values():
                self._kill(process)

    # The scheduler.

    def _loop(self) -> None:
        while not self._stop.wait(0.02):
            for path in sorted((self.folder / "new").iterdir(), key=lambda each: int(each.name)):
                self._jobs[int(path.name)] = spool.load(path.name, self.folder) or {}
                path.unlink()
            for path in (self.folder / "cancel").iterdir():
                self._cancel(int(path.name))
                path.unlink()
            for number, process in list(self._processes.items()):
                if process.poll() is not None:
                    self._ended(number, process.returncode)
            for job in [job for job in self._waiting if time.monotonic() >= job["until"]]:
                self._waiting.remove(job)
                if job["state"] not in spool.ENDED:
                    self._change(job, "RUNNING")
                    self._launch(job)
            for job in [job for job in self._jobs.values() if job["state"] == "PENDING"]:
                if len(self._processes) >= self.slots:
                    break
                self._start(job)

    def _change(self, job: dict[str, Any], state: str, **values: Any) -> None:
        job |= {"state": state, "ended": time.time() if state in spool.ENDED else 0.0} | values
        spool.save(job, self.folder)

    def _fault(self, job: dict[str, Any]) -> str:
        for pattern, attempts in self.faults.items():
            if attempts and re.search(pattern, job["name"]):
                return attempts.pop(0)
        return ""

    def _start(self, job: dict[str, Any]) -> None:
        fault = self._fault(job)
        job["starts"] = job.get("starts", 0) + 1
        kind, _, amount = fault.partition(":")
        if kind == "memory" and job["memory"] < float(amount):
            self._change(job, "OUT_OF_MEMORY", reason="OutOfMemory")
        elif kind == "disk" and job["disk"] < float(amount):
            self._change(job, "OVER_DISK")
        elif kind == "minutes" and job["minutes"] < float(amount):
            self._change(job, "TIMEOUT", reason="TimeLimit")
        elif kind == "exit":
            self._change(job, "FAILED", code=int(amount), reason="NonZeroExitCode")
        elif kind == "vanish":
            (self.folder / "jobs" / f"{job['id']}.json").unlink()
            job["state"] = "CANCELLED"
        elif kind in ("NODE_FAIL", "PREEMPTED") and job["kind"] == "condor":
            self._change(job, "PENDING")  # HTCondor puts evicted jobs back into the queue by itself
        elif kind in spool.ENDED:
            self._change(job, kind, reason=kind.lower(), code=0)
        elif kind in ("SUSPENDED", "RUNNING"):
            self._change(job, kind, until=time.monotonic() + float(amount))
            self._waiting.append(job)
        else:
            self._change(job, "RUNNING")
            self._launch(job)

    def _launch(self, job: dict[str, Any]) -> None:
        if self.instead is not None:
            code = self.instead(job)
            self._change(job, "COMPLETED" if code == 0 else "FAILED", code=code)
            return
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"} | job["env"]
        cwd = Path(job["cwd"] or self.folder / "scratch" / str(job["id"]))
        if job["kind"] == "condor":
            cwd.mkdir(exist_ok=True)
            for name in job["inputs"]:
                shutil.copy(name, cwd)
        with Path(job["log"]).open("ab") as log:
            self._processes[job["id"]] = subprocess.Popen(
                job["command"], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _ended(self, number: int, code: int) -> None:
        del self._processes[number]
        job = self._jobs[number]
        if job["state"] not in spool.ENDED:
            killed = -code if code < 0 else 0
            self._change(job, "COMPLETED" if code == 0 else "FAILED", code=max(code, 0), signal=killed)

    def _cancel(self, number: int) -> None:
        job = self._jobs.get(number)
        if job is None or job["state"] in spool.ENDED - spool.HOLDABLE:
            return
        self._change(job, "CANCELLED")
        if number in self._processes:
            self._kill(self._processes[number])

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
