"""A fault campaign: real server, real poller, stand-in jobs, and faults meanwhile; then the books are audited."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.fake_job import expected_results
from support.fault_proxy import Proxy
from support.machine import Machine
from support.server_process import start_server, stop_server

from pidml.alicetraint.jobs import JOB_DIR_VARIABLE, job_directory
from pidml.server.protocol import TaskStatus

ALLOWED = [TaskStatus.QUEUED, TaskStatus.TRAINING, TaskStatus.BENCHMARKING, TaskStatus.COMPLETED]


@dataclass
class Campaign:
    """One campaign over tasks queued on the real server.

    Attributes:
        machine: the machine, usually behind a proxy.
        folder: where logs go.
        plan: what the stand-in jobs do.
        injected: faults injected so far, by kind.
    """

    machine: Machine
    folder: Path
    plan: dict
    seed: int
    tasks: list[int] = field(default_factory=list)
    injected: Counter = field(default_factory=Counter)
    poller: subprocess.Popen | None = None
    lives: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.log = self.folder / "poller.log"

    def start(self) -> None:
        """Start the poller if it is not running."""
        code = None if self.poller is None else self.poller.poll()
        assert code in (None, -signal.SIGKILL), f"the poller ended with {code}: {self.log.read_text()[-3000:]}"
        if self.poller is None or code is not None:
            self.lives += 1
            plan = json.dumps(self.plan)
            self.poller = self.machine.start_poller(log=self.log, FAKE_JOB=plan, **self.environment)

    def done(self) -> bool:
        """Tell whether every task has reached its end, and the machine knows that the server knows."""
        return all(self._ended(task) for task in self.tasks)

    def _ended(self, task: int) -> bool:
        if self.machine.status(task) not in (TaskStatus.COMPLETED, TaskStatus.FAILED):
            return False
        return job_directory(self.machine.settings.store, task).state().phase == "reported"

    def run(self, inject: Callable[[], None], seconds: float) -> None:
        """Keep the poller alive and faults coming until every task has reached its end; fail after ``seconds``."""
        deadline = time.monotonic() + seconds
        try:
            while not self.done():
                assert time.monotonic() < deadline, f"not in time: {self.report()}\n{self.log.read_text()[-3000:]}"
                self.start()
                inject()
            self.stop()
        finally:
            self.kill("poller")

    def stop(self) -> None:
        """Stop the poller in the gentle way, if it runs, and check that it heeds."""
        if self.poller is None or self.poller.poll() is not None:
            return
        self.poller.terminate()
        # One that was started a moment ago dies of the signal before it could claim anything.
        assert self.poller.wait(60) in (0, -signal.SIGTERM), self.log.read_text()[-3000:]
        self.poller = None

    # Faults

    def wait(self, seconds: float) -> None:
        """Let things go on for a while; a test's clock, not a wait for an event."""
        time.sleep(seconds)

    def kill(self, *names: str) -> None:
        """Send SIGKILL to the poller, the guard, the job, or several of them as close together as can be."""
        victims = [pid for name in names for pid in self._pids(name)]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if victims:
            self.injected["kill " + " and ".join(names)] += 1
        if "poller" in names and self.poller is not None:
            self.poller.wait()

    def _pids(self, name: str) -> list[int]:
        if name == "poller":
            return [self.poller.pid] if self.poller is not None and self.poller.poll() is None else []
        found = {"guard": "guard.py", "job": "fake_job.py"}[name]
        return [
            pid
            for pid, command in self.job_processes()
            if found in command and ("guard.py" in command) == (name == "guard")
        ]

    def job_processes(self) -> list[tuple[int, str]]:
        """Return (number, command line) of every process that belongs to a job of this campaign."""
        mark = f"{JOB_DIR_VARIABLE}={self.machine.settings.store}/".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if any(part.startswith(mark) for part in (entry / "environ").read_bytes().split(b"\0")):
                        found.append((int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
                except OSError:
                    continue
        return found

    def restart_server(self, away: float) -> None:
        """Kill the server outright, leave it away for a while, and start it where it was."""
        server = self.machine.server
        server.process.kill()
        stop_server(server.process)
        self.injected["server killed"] += 1
        self.wait(away)
        port = int(server.url.rpartition(":")[2])
        server.process, url = start_server(server.data_dir, port=port)
        assert url == server.url

    # Audit

    def report(self, proxy: Proxy | None = None) -> dict:
        """Return the books: faults, jobs, results lost and duplicated, steps made again."""
        lost = duplicated = 0
        for task in self.tasks:
            results = Counter(self.machine.results(task))
            expected = expected_results(task, self.plan.get("steps", 3))
            lost += len(expected - set(results)) + (self.machine.status(task) is not TaskStatus.COMPLETED)
            duplicated += sum(count - 1 for count in results.values()) + len(set(results) - expected)
        computed = self.machine.settings.store / "computed.log"
        steps = Counter(computed.read_text().splitlines() if computed.exists() else [])
        faults = self.injected + Counter(proxy.injected if proxy else {})
        return {
            "faults": sum(faults.values()),
            "kinds": dict(sorted(faults.items())),
            "jobs": len(self.tasks),
            "poller_lives": self.lives,
            "results": sum(len(self.machine.results(task)) for task in self.tasks),
            "lost": lost,
            "duplicated": duplicated,
            "recomputed": sum(count - 1 for count in steps.values()),
        }

    def audit(self, proxy: Proxy | None = None) -> dict:
        """Print the books and check them: nothing lost, nothing twice, nothing left behind, no key anywhere."""
        books = self.report(proxy)
        print(json.dumps(books))
        assert (books["lost"], books["duplicated"], books["recomputed"]) == (0, 0, 0), self.log.read_text()[-3000:]
        for task in self.tasks:
            statuses = [change.status for change in self.machine.server.store.history(task)]
            assert statuses == [status for status in ALLOWED if status in statuses], "in order, none twice"
            job = job_directory(self.machine.settings.store, task)
            assert job.state().phase == "reported"
            assert list((job.path / "pending").iterdir()) == []
        assert self.job_processes() == []
        secret = self.machine.settings.secret.reveal().encode()
        written = [path for path in self.machine.settings.store.rglob("*") if path.is_file()]
        assert [path for path in [*written, self.log] if secret in path.read_bytes()] == []
        return books
