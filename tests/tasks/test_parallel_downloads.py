"""How many files are fetched side by side, as law runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from support.small_job import law_run, outputs

FILES = 6
PATIENCE = 60.0


class Meeting(ThreadingHTTPServer):
    """Answers only when so many requests are there at the same time, and remembers the most that there were."""

    daemon_threads = True

    def __init__(self, together: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.barrier = threading.Barrier(together)
        self.lock = threading.Lock()
        self.here = self.most = 0


class _Handler(BaseHTTPRequestHandler):
    server: Meeting

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.here += 1
            self.server.most = max(self.server.most, self.server.here)
        try:
            self.server.barrier.wait(PATIENCE)
            status = 200
        except threading.BrokenBarrierError:
            status = 404  # too few came
        with self.server.lock:
            self.server.here -= 1
        self.send_response(status)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"file")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def meeting(together: int) -> Iterator[Meeting]:
    with Meeting(together) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def write_job(folder: Path, server: Meeting) -> Path:
    base = f"http://127.0.0.1:{server.server_address[1]}"
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump({"dataset": {"files": [f"{base}/{number}.root" for number in range(FILES)]}}))
    return job


@pytest.mark.parametrize("parallel", [2, 6])
def test_as_many_files_as_asked_for_are_fetched_side_by_side(tmp_path: Path, parallel: int) -> None:
    with meeting(parallel) as server:
        job = write_job(tmp_path, server)
        result = law_run(tmp_path / "store", "DownloadAOD", "--job", str(job), PIDML_FETCH_PARALLEL=str(parallel))
        assert result.returncode == 0, result.stdout + result.stderr
        assert server.most == parallel
    assert len(outputs(tmp_path / "store", ["DownloadAOD"])["DownloadAOD"]) == FILES


def test_workers_bound_downloads_too(tmp_path: Path) -> None:
    with meeting(1) as server:
        job = write_job(tmp_path, server)
        result = law_run(tmp_path / "store", "DownloadAOD", "--job", str(job), "--workers", "1")
        assert result.returncode == 0, result.stdout + result.stderr
        assert server.most == 1


def test_a_number_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    result = law_run(tmp_path / "store", "DownloadAOD", "--job", "sandbox", PIDML_FETCH_PARALLEL="many")
    assert result.returncode != 0
    assert "PIDML_FETCH_PARALLEL = 'many'" in result.stdout + result.stderr


def test_pidml_run_says_it_in_one_line(tmp_path: Path) -> None:
    environment = os.environ | {"PIDML_STORE": str(tmp_path / "store"), "PIDML_FETCH_PARALLEL": "many"}
    command = [sys.executable, "-m", "pidml", "run", "sandbox"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error [P900] PIDML_FETCH_PARALLEL = 'many'")
