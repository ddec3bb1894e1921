"""The real embedded server as a process of its own, for tests: started on a free port, ended afterwards.

with running_server(tmp_path / "server") as server:
    machine = server.store.register_machine("test machine")
    requests.get(f"{server.url}/training-machines/{machine.id}/training-task", ...)
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from pidml.server.store import ServerStore


@dataclass
class RunningServer:
    """A server process: its address, its store (opened in this process too) and the process itself."""

    url: str
    data_dir: Path
    process: subprocess.Popen
    store: ServerStore
    session: requests.Session = field(default_factory=requests.Session)

    def fetch(self, machine_id: object, secret: str) -> requests.Response:
        return self.session.get(
            f"{self.url}/training-machines/{machine_id}/training-task", headers={"Secret-Id": secret}, timeout=60
        )

    def report(self, task_id: object, secret: str, status: object) -> requests.Response:
        return self.session.post(
            f"{self.url}/training-tasks/{task_id}/status",
            json={"Status": status},
            headers={"Secret-Id": secret},
            timeout=60,
        )

    def upload(
        self, task_id: object, secret: str, file_name: str, content: bytes, file_type: str = "0", key: str | None = None
    ) -> requests.Response:
        return self.session.post(
            f"{self.url}/training-tasks/{task_id}/training-task-results",
            files={"file": (file_name, content)},
            data={"name": file_name, "description": f"{file_name}, as made", "file-type": file_type},
            headers={"Secret-Id": secret} | ({"Idempotency-Key": key} if key else {}),
            timeout=60,
        )


def start_server(
    data_dir: Path, *, grid_dir: Path | None = None, port: int = 0, options: tuple[str, ...] = (), **environment: str
) -> tuple[subprocess.Popen, str]:
    """Start a server and return the process and its base URL, which is the first line the process prints."""
    command = [sys.executable, "-m", "pidml.server", "--data-dir", str(data_dir), "--port", str(port), *options]
    command += ["--grid-dir", str(grid_dir)] if grid_dir else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    url = process.stdout.readline().strip()
    if not url:
        raise RuntimeError(f"the server ended with {process.wait()} before it listened")
    return process, url


def stop_server(process: subprocess.Popen) -> int:
    """End a server with SIGTERM, or SIGKILL if it does not heed it, and return its exit code."""
    process.terminate()
    try:
        return process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        process.stdout.close()


@contextmanager
def running_server(
    data_dir: Path, *, grid_dir: Path | None = None, port: int = 0, options: tuple[str, ...] = (), **environment: str
) -> Iterator[RunningServer]:
    """Run a server on a free port of the loopback for the length of a ``with`` block.

    Args:
        data_dir: the server's data directory.
        grid_dir: directory served as the embedded GRID.
        port: port to listen on, 0 for a free one; a number brings a server back where it was.
        options: further command-line options of ``python -m pidml.server``.
        environment: further environment variables.
    """
    process, url = start_server(data_dir, grid_dir=grid_dir, port=port, options=options, **environment)
    try:
        with ServerStore(data_dir) as store:
            server = RunningServer(url, data_dir, process, store)
            with server.session:
                yield server
    finally:
        stop_server(process)
