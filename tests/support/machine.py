"""A training machine for tests: the real server, a machine registered on it, and the settings to poll it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from support import fake_job
from support.server_process import RunningServer, running_server

from pidml.alicetraint.client import AliceTraINTClient
from pidml.alicetraint.transport import Retry, Timeouts
from pidml.secret import Secret
from pidml.server.protocol import TaskStatus
from pidml.settings import PollerLimits, Settings

LFN = "/alice/sim/2026/LHC26sandbox/0/1/AOD/001/AO2D.root"
RUN_POLLER = Path(__file__).with_name("run_poller.py")


def fake_command(_: object) -> list[str]:
    return [sys.executable, fake_job.__file__]


@dataclass
class Machine:
    """The server, this machine's settings, and what a test does with both."""

    server: RunningServer
    settings: Settings

    def with_limits(self, **limits: float) -> Machine:
        return replace(self, settings=replace(self.settings, limits=replace(self.settings.limits, **limits)))

    def at(self, url: str) -> Machine:
        """Return the same machine behind another address, a proxy's for example."""
        return replace(self, settings=replace(self.settings, base_url=url))

    def client(self, attempts: int = 1, read: float = 5.0) -> AliceTraINTClient:
        return AliceTraINTClient(
            self.settings.server_address(), Timeouts(2.0, read, 20.0), Retry(attempts, first=0.01, longest=0.05)
        )

    def queue(self, count: int = 1, path: str = LFN, configuration: dict | None = None, **more: object) -> list[int]:
        files = [{"Path": path, **more}]
        return [self.server.store.queue_task(f"t{n}", files, configuration or {}) for n in range(count)]

    def statuses(self, task: int) -> list[str]:
        return [change.status.name for change in self.server.store.history(task)]

    def status(self, task: int) -> TaskStatus:
        return self.server.store.task(task).status

    def results(self, task: int) -> list[tuple[str, str]]:
        store = self.server.store
        return [(each.name, store.result_path(each).read_text()) for each in store.results(task)]

    def environment(self, **more: str) -> dict[str, str]:
        limits = self.settings.limits
        ours = {
            "ALICETRAINT_POOLING_WAIT_SECONDS": str(limits.wait),
            "PIDML_SLOW_POLL_SECONDS": str(limits.slow_wait),
            "PIDML_GRACE_SECONDS": str(limits.grace),
            "PIDML_RETRY_SECONDS": str(limits.retry),
            "PIDML_JOB_LIVES": str(limits.lives),
            "PIDML_JOB_ATTEMPTS": str(limits.attempts),
            "PIDML_HEARTBEAT_SECONDS": str(limits.heartbeat),
            "PIDML_MIN_FREE_GB": "0",
        }
        return {
            **os.environ,
            **self.settings.environment(),
            **ours,
            "PYTHONPATH": os.pathsep.join([str(RUN_POLLER.parent.parent), os.environ.get("PYTHONPATH", "")]),
            **more,
        }

    def start_poller(self, *options: str, log: Path, **environment: str) -> subprocess.Popen:
        """Start a poller as a process of its own, with the stand-in for law; its log is appended to ``log``."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                [sys.executable, str(RUN_POLLER), *options],
                env=self.environment(**environment),
                stdout=stream,
                stderr=subprocess.STDOUT,
            )


@contextmanager
def running_machine(folder: Path, options: Sequence[str] = ()) -> Iterator[Machine]:
    """Run the real server below ``folder`` with one machine registered."""
    with running_server(folder / "server", options=tuple(options)) as server:
        registered = server.store.register_machine("test machine")
        limits = PollerLimits(
            wait=0.05, slow_wait=0.2, grace=5.0, min_free=0, retry=0.02, attempts=4, lives=10, heartbeat=0.1
        )
        settings = Settings(
            store=folder / "store",
            base_url=server.url,
            machine_id=registered.id,
            secret=Secret(registered.secret),
            limits=limits,
        )
        yield Machine(server, settings)
