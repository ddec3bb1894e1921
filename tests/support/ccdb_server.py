"""A small CCDB on loopback, over HTTP or HTTPS with client certificates, that fails on demand; and certificates.

with ccdb_server(Certificates.make(folder)) as server:
    server.runs[535084] = (1, 2)
    server.faults += [503, "cut", "hang"]
    server.stored          # what was stored: (path, part name, file name, content, client's name)
"""

from __future__ import annotations

import email
import email.policy
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Certificates:
    """Files of a certificate authority, a server at 127.0.0.1, a client, and a client that nobody knows."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("ca", "rogue"):
            _openssl(
                folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
            )  # fmt: skip
        for name in ("server", "client"):
            holder = "IP:127.0.0.1" if name == "server" else "email:client@site.example"
            (folder / f"{name}.ext").write_text(f"subjectAltName={holder}\n")
            _openssl(
                folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
            )  # fmt: skip
            _openssl(
                folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
            )  # fmt: skip
        _openssl(folder, "ec", "-in", "client.key", "-aes256", "-passout", "pass:secret", "-out", "encrypted.key")
        return cls(folder)


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@dataclass
class CcdbServer:
    """The running server."""

    scheme: str
    port: int
    runs: dict[int, tuple[object, object]] = field(default_factory=dict)
    run_status: int = 200
    faults: list[Any] = field(default_factory=list)
    stored: list[tuple[str, str, str, bytes, str]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: CcdbServer

    def log_message(self, *args):
        """Keep the test's output clean."""

    def do_HEAD(self):
        self.state.requests.append(("HEAD", self.path))
        if self._fails():
            return
        run = int(self.path.rsplit("/", 1)[1])
        if not self.path.startswith("/RCT/Info/RunInformation/") or run not in self.state.runs:
            self._answer(404, {})
            return
        names = {"SOR": self.state.runs[run][0], "EOR": self.state.runs[run][1]}
        redirect = {"Location": "https://elsewhere.example/download/1"} if self.state.run_status >= 300 else {}
        self._answer(self.state.run_status, {k: str(v) for k, v in names.items() if v is not None} | redirect)

    def do_POST(self):
        self.state.requests.append(("POST", self.path))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._fails():
            return
        header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = email.message_from_bytes(header + body, policy=email.policy.HTTP)
        (part,) = message.iter_parts()
        client = dict(pair for group in self._client().get("subject", ()) for pair in group).get("commonName", "")
        name = part.get_param("name", header="content-disposition")
        self.state.stored.append((self.path, name, part.get_filename(), part.get_payload(decode=True), client))
        self._answer(201, {"Location": f"/download/{len(self.state.stored)}"})

    def _client(self):
        return self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else {}

    def _fails(self):
        fault = self.state.faults.pop(0) if self.state.faults else None
        if fault == "cut":
            self.close_connection = True
            self.connection.close()
        elif fault == "hang":
            self.state.release.wait(30)
            self.close_connection = True
        elif isinstance(fault, tuple):
            self._answer(*fault)
        elif fault is not None:
            self._answer(fault, {})
        return fault is not None

    def _answer(self, code, headers):
        body = b"" if self.command == "HEAD" else f"said {code}\n".encode()
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that goes away, or whose certificate is refused, is no error of the server."""


@contextmanager
def ccdb_server(certificates: Certificates | None = None, client_required: bool = True) -> Iterator[CcdbServer]:
    """Run the server on a free port of the loopback interface."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.path("server.pem"), certificates.path("server.key"))
        context.load_verify_locations(certificates.path("ca.pem"))
        context.verify_mode = ssl.CERT_REQUIRED if client_required else ssl.CERT_OPTIONAL
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state = handler.state = CcdbServer("https" if certificates else "http", server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
