"""An HTTP file server on loopback that fails on demand, for tests of downloads.

with fault_server() as server:
    server.files["/a.root"] = Served(content, faults=[Cut(1000), Status(503)])
    requests.get(server.url + "/a.root")     # cut after 1,000 B, then 503, then the whole file
    server.requests                          # what was asked, in order
"""

from __future__ import annotations

import email.utils
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Status:
    """Answer with a status, some headers and a short text."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Cut:
    """Announce everything, send this many bytes of the body, close the connection."""

    after: int


@dataclass
class Hold:
    """Send this many bytes, set ``reached``, and go on only when ``release`` is set."""

    after: int
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@dataclass
class Corrupt:
    """Send the right number of bytes, the one at ``at`` flipped."""

    at: int


@dataclass
class WrongRange:
    """Answer a range request with 206 and another range than asked for."""


@dataclass
class NoLength:
    """Announce no length and send this many bytes too many (or too few, if negative), then close."""

    extra: int


Fault = Status | Cut | Hold | Corrupt | WrongRange | NoLength


@dataclass
class Served:
    """A file: its content, its marks of version, whether ranges work, and one fault per request until none is left."""

    content: bytes
    etag: str | None = '"v1"'
    modified: float | None = None
    ranges: bool = True
    honours_if_range: bool = True
    checksum_header: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


@dataclass
class FaultServer:
    """The running server: what it serves and what it was asked."""

    port: int
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ranges(self) -> list[str | None]:
        """Return the ``Range`` header of each request."""
        return [headers.get("Range") for _, _, headers in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: FaultServer

    def log_message(self, *args):
        """Keep the test's output clean."""

    def do_GET(self):
        state = self.server_state
        path = self.path.split("?")[0]
        state.requests.append((self.command, self.path, dict(self.headers.items())))
        served = state.files.get(path)
        if served is None:
            self._plain(404, {})
            return
        fault = served.faults.pop(0) if served.faults else None
        if isinstance(fault, Status):
            self._plain(fault.code, fault.headers)
        else:
            self._file(served, fault)

    def _plain(self, code, headers):
        body = f"status {code}\n".encode()
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _file(self, served, fault):
        start = self._start(served)
        if start is not None and start >= len(served.content):
            self._plain(416, {"Content-Range": f"bytes */{len(served.content)}"})
            return
        if isinstance(fault, WrongRange) and start is not None:
            start += 1
        body = served.content[start or 0 :]
        self.send_response(200 if start is None else 206)
        if start is not None:
            last = len(served.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(served.content)}")
        for name, value in self._headers(served).items():
            self.send_header(name, value)
        if isinstance(fault, NoLength):
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._body(body, fault)

    def _headers(self, served):
        headers = dict(served.headers)
        if served.etag:
            headers["ETag"] = served.etag
        if served.modified is not None:
            headers["Last-Modified"] = email.utils.formatdate(served.modified, usegmt=True)
        if served.checksum_header:
            headers["X-Checksum-Sha256"] = hashlib.sha256(served.content).hexdigest()
        return headers

    def _start(self, served):
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or not served.ranges:
            return None
        mark = self.headers.get("If-Range")
        current = self._headers(served)
        if mark and served.honours_if_range and mark not in (current.get("ETag"), current.get("Last-Modified")):
            return None
        return int(match[1])

    def _body(self, body, fault):
        if isinstance(fault, Corrupt):
            body = bytearray(body)
            body[fault.at] ^= 0xFF
        if isinstance(fault, NoLength):
            body = body + bytes(fault.extra) if fault.extra > 0 else body[: len(body) + fault.extra]
            self.close_connection = True
        if isinstance(fault, Cut):
            body = body[: fault.after]
            self.close_connection = True
        if isinstance(fault, Hold):
            self.wfile.write(body[: fault.after])
            self.wfile.flush()
            fault.reached.set()
            fault.release.wait(60)
            body = body[fault.after :]
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client went away, which is what some tests want


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that was killed is no error of the server."""


@contextmanager
def fault_server() -> Iterator[FaultServer]:
    """Run the server on a free port of the loopback interface."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    state = handler.server_state = FaultServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
