"""Certificates that a training machine shows or relies on, and for how long they are valid."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pidml.ccdb.access import Access
from pidml.errors import PidmlError
from pidml.poller.checks import Check

DAY = 86_400.0
_PROGRAM_SECONDS = 20.0
_CCDB = "CCDB certificate"


def server_certificate(base_url: str) -> Check:
    """Look at how long the server's certificate is valid."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        with (
            socket.create_connection((host, parts.port or 443), timeout=10) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secured,
        ):
            until = ssl.cert_time_to_seconds(str((secured.getpeercert() or {}).get("notAfter")))
    except (OSError, ValueError) as error:
        return Check("certificate of the server", "warning", f"cannot be read: {error}", "is there a proxy between?")
    return _expiry("certificate of the server", until, "tell the server's administrator")


def _expiry(name: str, until: float, advice: str) -> Check:
    days = (until - time.time()) / DAY
    if days < 0:
        return Check(name, "failed", f"expired {-days:.1f} days ago", advice)
    found = f"valid for {days:.1f} days"
    return Check(name, "ok", found) if days > 1.0 else Check(name, "warning", found, advice)


def grid_credentials() -> list[Path]:
    """Return where certificates, proxies and tokens of the GRID may lie."""
    user, temporary = os.getuid(), Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - where these tools put them
    named = [os.environ.get("JALIEN_TOKEN_CERT"), os.environ.get("X509_USER_PROXY"), os.environ.get("X509_USER_CERT")]
    usual = [
        temporary / f"tokencert_{user}.pem",
        temporary / f"x509up_u{user}",
        Path.home() / ".globus" / "usercert.pem",
    ]
    return [*(Path(text) for text in named if text), *usual]


def certificate_file(name: str, path: Path, advice: str) -> Check:
    """Look at how long a certificate or proxy is valid.

    Args:
        name: what it is called.
        path: PEM file.
        advice: what to do if it is not.
    """
    if shutil.which("openssl") is None:
        return Check(name, "warning", "there, its validity is not known", "install openssl")
    said = run_program("openssl", "x509", "-enddate", "-noout", "-in", str(path))
    try:
        until = ssl.cert_time_to_seconds(said.strip().removeprefix("notAfter="))
    except ValueError:
        return Check(name, "failed", "no certificate can be read from it", "replace the file")
    return _expiry(name, until, advice)


def ccdb_certificate(environ: Mapping[str, str]) -> Iterator[Check]:
    """Look at the certificate that PublishCCDB shows, if one is named for it; its place is not said."""
    named = [name for name in ("PIDML_CCDB_CERT", "PIDML_CCDB_KEY") if environ.get(name)]
    if not named:
        return
    try:
        access = Access.from_env(environ)
        access.context()
        access.verify()
    except PidmlError as error:
        yield Check(_CCDB, "failed", error.what, error.hint)
        return
    if access.certificate is not None:
        yield certificate_file(_CCDB, access.certificate, "renew it (ca.cern.ch), and see PIDML_CCDB_CERT")


def run_program(*command: str) -> str:
    """Return what a program prints, or nothing if it fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_PROGRAM_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
