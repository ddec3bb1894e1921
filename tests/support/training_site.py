"""A training machine with everything real: a server with a GRID, and a machine whose poller runs law."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.server_process import RunningServer, running_server

from pidml.server.aod import aod_file
from pidml.server.protocol import FileType, TaskStatus
from pidml.server.records import NewMachine
from pidml.simulation.ao2d import write_ao2d

LFNS = [f"/alice/sim/2026/LHC26t/0/7/AOD/{number:03d}/AO2D.root" for number in (1, 2)]
CONFIGURATION = {
    "bs": 256, "max_epochs": 1, "dropout": 0.1, "gamma": 0.9, "patience": 5, "patience_threshold": 0.001,
    "embed_hidden": 16, "d_model": 16, "ff_hidden": 32, "pool_hidden": 8, "num_heads": 2, "num_blocks": 1,
    "start_lr": 0.003, "undersample": False,
}  # fmt: skip


class Site:
    """A server with a GRID, and one registered machine whose poller this starts."""

    def __init__(self, folder: Path, server: RunningServer, machine: NewMachine) -> None:
        self.folder, self.server, self.machine = folder, server, machine
        self.environment: dict[str, str] = {}

    def queue(self, lfns: list[str], configuration: dict[str, Any]) -> int:
        files = [aod_file(lfn, self._size(lfn)) for lfn in lfns]
        return self.server.store.queue_task("test", files, configuration)

    def _size(self, lfn: str) -> int | None:
        path = self.folder / "grid" / lfn.lstrip("/")
        return path.stat().st_size if path.is_file() else None

    def command(self, *arguments: str) -> tuple[list[str], dict[str, Any]]:
        environment = {
            **os.environ,
            "MACHINE_ID": str(self.machine.id),
            "MACHINE_SECRET_KEY": self.machine.secret,
            "ALICETRAINT_BASE_URL": self.server.url,
            "PIDML_STORE": str(self.folder / "store"),
            "PIDML_GRID": f"{self.server.url}/grid",
            "PIDML_POLL_SECONDS": "0.2",
            "PIDML_RETRY_SECONDS": "0.5",
            **self.environment,
        }
        return [sys.executable, "-m", "pidml", *arguments], {"env": environment, "cwd": self.folder}

    def poll(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command, options = self.command("poll", *arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, **options)

    def status(self, task: int) -> TaskStatus:
        found = self.server.store.task(task)
        assert found is not None
        return found.status

    def results(self, task: int) -> dict[str, list[str]]:
        """Return the names of the results on the server by type."""
        results = self.server.store.results(task)
        return {kind.name: sorted(each.file_name for each in results if each.type == kind) for kind in FileType}


def write_on_grid(folder: Path, lfn: str, number: int, tracks: int = 3000) -> None:
    """Simulate a file of a site's GRID."""
    write_ao2d(folder / "grid" / lfn.lstrip("/"), tracks, number, frames=2, first_frame=1 + 2 * number)


@contextmanager
def running_site(folder: Path, tracks: int = 3000) -> Iterator[Site]:
    """Run a server with :data:`LFNS` on its GRID, and register a machine."""
    for number, lfn in enumerate(LFNS):
        write_on_grid(folder, lfn, number, tracks)
    with running_server(folder / "server", grid_dir=folder / "grid") as server:
        yield Site(folder, server, server.store.register_machine("test machine"))
