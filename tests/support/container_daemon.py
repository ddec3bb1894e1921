"""Stands in for the daemon of docker or podman: runs "containers" that are no descendants of the client that asked.

A thread of the test itself, spoken to by the stand-in client (:mod:`support.o2_stand_in`) over the loopback. A client
that dies does not end its container.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class ContainerDaemon(socketserver.ThreadingTCPServer):
    """The daemon; ``containers`` are those that run, by name."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.containers: dict[str, subprocess.Popen[bytes]] = {}
        self.refuses = False

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def running(self) -> list[str]:
        return [name for name, process in list(self.containers.items()) if process.poll() is None]

    def remove(self, name: str) -> None:
        process = self.containers.get(name)
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class _Request(socketserver.StreamRequestHandler):
    server: ContainerDaemon

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        if self.server.refuses and request["do"] != "run":
            self._say(b"output Cannot connect to the daemon\nstatus 1\n")
        elif request["do"] == "run":
            self._run(request)
        elif request["do"] == "ps":
            wanted = request["arguments"][request["arguments"].index("--filter") + 1].removeprefix("name=")
            names = [name for name in self.server.running() if wanted in name]
            self._say(b"".join(f"output {name}\n".encode() for name in names) + b"status 0\n")
        else:
            self.server.remove(request["arguments"][-1])
            self._say(b"status 0\n")

    def _run(self, request: dict) -> None:
        process = subprocess.Popen(
            request["command"],
            cwd=request["cwd"],
            env=request["env"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with process:
            self.server.containers[request["name"]] = process
            assert process.stdout is not None
            for line in process.stdout:
                self._say(b"output " + line.rstrip(b"\n") + b"\n")
            status = process.wait()
        self._say(f"status {status if status >= 0 else 128 - status}\n".encode())

    def _say(self, text: bytes) -> None:
        with suppress(OSError):  # the client is gone; the container goes on
            self.wfile.write(text)


@contextmanager
def container_daemon() -> Iterator[ContainerDaemon]:
    """Run the daemon for the length of a ``with`` block; containers that are left then are ended."""
    with ContainerDaemon() as daemon:
        thread = threading.Thread(target=daemon.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield daemon
        finally:
            for name in daemon.running():
                daemon.remove(name)
            daemon.shutdown()
            thread.join()
