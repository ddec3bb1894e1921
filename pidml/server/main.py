"""Run the embedded server until it is told to stop."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from pidml.atomic import write_json
from pidml.errors import ConfigError, PidmlError
from pidml.server.app import create_app
from pidml.server.settings import ServerSettings

SERVER_FILE = "server.json"
GRACE_SECONDS = 10
MAX_HEADER_BYTES = 64 * 1024


def serve(settings: ServerSettings, announce: Callable[[str], None] | None = None) -> None:
    """Run the server until SIGTERM or SIGINT, then let requests in progress finish and return.

    Once it listens, ``<data_dir>/server.json`` holds ``{"url": …, "pid": …, "started": …}`` and ``announce`` is called
    with the base URL; with port 0 this is how the real address is learnt. The file is removed at the end.

    Args:
        settings: where to listen, what to keep where, and limits.
        announce: called with the base URL (``http://127.0.0.1:43219``) once connections are accepted.

    Raises:
        ConfigError: unusable settings, an address in use, or a data directory that another server uses.
        StoreError: the data directory cannot be used.
    """
    settings.check()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with _only_server(settings.data_dir), _listening_socket(settings) as listening:
        app = create_app(settings)
        app.state.store.remove_orphans()
        url = _base_url(settings.host, listening.getsockname()[1])
        server_file = settings.data_dir / SERVER_FILE

        def started() -> None:
            write_json(server_file, {"url": url, "pid": os.getpid(), "started": time.time()})
            if announce is not None:
                announce(url)

        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        try:
            _Server(config, started).run(sockets=[listening])
        finally:
            server_file.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """A server that says when it listens, and that returns when a signal ends it instead of dying of the signal."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _only_server(data_dir: Path) -> Iterator[None]:
    with (data_dir / "serving.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another server uses {data_dir}",
                f"its address is in {data_dir / SERVER_FILE}; or name another directory",
            ) from None
        yield


@contextmanager
def _listening_socket(settings: ServerSettings) -> Iterator[socket.socket]:
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off; otherwise every answer waits some 40 ms for an ACK.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, settings.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}",
                "name another port, or 0 for a free one",
            ) from error
        yield listening


def _base_url(host: str, port: int) -> str:
    host = host.strip("[]")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server from a command line (``python -m pidml.server``); the base URL is the first line printed."""
    parser = argparse.ArgumentParser(prog="python -m pidml.server", description="Run the embedded server.")
    parser.add_argument("--data-dir", type=Path, required=True, help="database and uploaded files")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="TCP port, 0 for a free one")
    parser.add_argument("--grid-dir", type=Path, help="directory served below /grid/")
    parser.add_argument("--max-upload-bytes", type=int, default=ServerSettings.max_upload_bytes)
    parser.add_argument("--max-body-bytes", type=int, default=ServerSettings.max_body_bytes)
    options = parser.parse_args(arguments)
    settings = ServerSettings(**vars(options), admin_token=os.environ.get("PIDML_SERVER_TOKEN") or None)
    try:
        serve(settings, lambda url: print(url, flush=True))  # noqa: T201 - the address is this command's output
    except PidmlError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
