"""An HTTP proxy on loopback before the real server, which fails as it is told to.

with fault_proxy(server.url) as proxy:
    proxy.faults = [Answer(503), LoseAnswer(), None]   # for the next requests, in order; then all pass
    proxy.choose = function                            # or: called with (method, path), gives the fault or None
    proxy.hides = {"idempotency-key"}                  # headers of requests that the server is not to see
    proxy.seen                                         # (method, path, headers) of every request, in order
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Answer:
    """Answer in the server's place; the request is not passed on."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"out of order"


@dataclass
class LoseAnswer:
    """Pass the request on, then end the connection without an answer; by reset instead of close if asked."""

    reset: bool = False


@dataclass
class Drop:
    """End the connection without passing the request on."""

    reset: bool = False


@dataclass
class Truncate:
    """Pass on, announce the whole answer, send so many bytes of it, close."""

    after: int = 5


@dataclass
class Hang:
    """Pass on (or not) and answer nothing until the proxy ends."""

    forward: bool = False


@dataclass
class Twice:
    """Pass the same request on twice; the second answer counts."""


Fault = Answer | LoseAnswer | Drop | Truncate | Hang | Twice | None


class Proxy:
    """What a test holds in its hand."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.faults: list[Fault] = []
        self.choose: Callable[[str, str], Fault] = lambda method, path: None
        self.hides: set[str] = set()
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.injected: dict[str, int] = {}
        self.ending = threading.Event()
        self.url = ""
        self._guard = threading.Lock()

    def next_fault(self, method: str, path: str, headers: dict[str, str]) -> Fault:
        with self._guard:
            self.seen.append((method, path, headers))
            fault = self.faults.pop(0) if self.faults else self.choose(method, path)
            if fault is not None:
                name = type(fault).__name__
                self.injected[name] = self.injected.get(name, 0) + 1
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.proxy.next_fault(self.command, self.path, dict(self.headers.items()))
        if isinstance(fault, Answer):
            self._send(fault.status, fault.headers, fault.body)
        elif isinstance(fault, Drop):
            self._end(fault.reset)
        elif isinstance(fault, Hang) and not fault.forward:
            self.proxy.ending.wait()
            self._end(reset=False)
        else:
            try:
                self._forward(body, fault)
            except (OSError, http.client.HTTPException):
                self._send(503, {}, b"the server is away")

    def _forward(self, body: bytes, fault: Fault) -> None:
        status, headers, answer = self._ask(body)
        if isinstance(fault, Twice):
            status, headers, answer = self._ask(body)
        if isinstance(fault, LoseAnswer):
            self._end(fault.reset)
        elif isinstance(fault, Hang):
            self.proxy.ending.wait()
            self._end(reset=False)
        elif isinstance(fault, Truncate):
            self._send(status, headers, answer, cut=fault.after)
            self._end(reset=False)
        else:
            self._send(status, headers, answer)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(self.proxy.upstream.hostname, self.proxy.upstream.port, timeout=30)
        try:
            left_out = {"connection", *self.proxy.hides}
            headers = {key: value for key, value in self.headers.items() if key.lower() not in left_out}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            upstream.close()

    def _send(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])

    def _end(self, reset: bool) -> None:
        self.close_connection = True
        if reset:  # a close with nothing lingering is a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed in the middle of a request is what these tests are about."""


@contextmanager
def fault_proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy before ``upstream`` on a free port for the length of a ``with`` block."""
    proxy = Proxy(upstream)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()
