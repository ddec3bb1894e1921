"""``pidml doctor``: what this machine needs to work, whether it has it, and what to do if not."""

from __future__ import annotations

import email.utils
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pidml.alicetraint.client import AliceTraINTClient
from pidml.alicetraint.jobs import all_jobs
from pidml.alicetraint.transport import Answer, Retry
from pidml.atomic import write_text
from pidml.errors import PidmlError
from pidml.fetch import FetchOptions
from pidml.poller.disk import free_bytes
from pidml.producer.o2physics_runtime import resolve
from pidml.settings import GIB, Settings
from pidml.spec.data_sections import Producer

DAY = 86_400.0
_SKEW_WARNING, _SKEW_FAILED = 30.0, 300.0
_PROGRAM_SECONDS = 20.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what was looked at.
        outcome: ok, warning (works with less) or failed (does not work).
        found: what was found.
        advice: what to do, empty if nothing.
    """

    name: str
    outcome: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


def doctor(settings: Settings) -> list[Check]:
    """Look at everything that a training machine needs; claims no task and changes nothing on the server."""
    checks = [*_configuration(settings), *_store(settings)]
    if not any(check.outcome == "failed" for check in checks if check.name == "configuration"):
        checks += _server(settings)
    return [*checks, *_grid(settings), *_producer(settings), *_scheduler(settings), _gpu()]


def _configuration(settings: Settings) -> Iterator[Check]:
    try:
        address = settings.server_address()
    except PidmlError as error:
        yield Check("configuration", "failed", error.what, error.hint)
        return
    yield Check("configuration", "ok", f"machine {address.machine_id} on {address.base_url}")
    for note in settings.notes:
        yield Check("configuration", "warning", note, "remove the variable")
    parts = urlsplit(address.base_url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        advice = "use the https address of the server"
        yield Check("encryption", "warning", "the key travels over the network unencrypted", advice)


def _store(settings: Settings) -> Iterator[Check]:
    probe = settings.store / ".doctor"
    try:
        write_text(probe, "can this be written?\n")
        probe.unlink()
        free = free_bytes(settings.store)
    except (PidmlError, OSError) as error:
        yield Check("store", "failed", str(error).splitlines()[0], "set PIDML_STORE to a place that can be written")
        return
    found = f"{free / GIB:.1f} GiB free for {settings.store}"
    if free < settings.limits.min_free:
        yield Check(
            "store", "failed", found, "no job is started: free some space (`pidml gc`), or lower PIDML_MIN_FREE_GB"
        )
    elif free < 20 * settings.limits.min_free:
        yield Check("store", "warning", found, "jobs with many AO2D files need more")
    else:
        yield Check("store", "ok", found)


def _server(settings: Settings) -> Iterator[Check]:
    with AliceTraINTClient.of_settings(settings, retry=Retry(attempts=1)) as client:
        try:
            answer = client.probe()
        except PidmlError as error:
            yield Check("server", "failed", error.what, error.hint)
            return
        yield Check("server", "ok", f"{client.address.base_url} answers")
        yield _clock(answer)
        yield _key(settings, client)
    if client.address.base_url.startswith("https:"):
        yield _server_certificate(client.address.base_url)


def _clock(answer: Answer) -> Check:
    date = email.utils.parsedate_tz(answer.headers.get("date", ""))
    if date is None:
        return Check("clock", "warning", "the server does not tell the time", "compare this machine's clock by hand")
    skew = time.time() - email.utils.mktime_tz(date)
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server"
    if abs(skew) < _SKEW_WARNING:
        return Check("clock", "ok", "in step with the server")
    outcome: Literal["warning", "failed"] = "warning" if abs(skew) < _SKEW_FAILED else "failed"
    return Check("clock", outcome, found, "switch time synchronisation on (`timedatectl set-ntp true`)")


def _key(settings: Settings, client: AliceTraINTClient) -> Check:
    own = [job.task_id for job in all_jobs(settings.store)]
    try:
        accepted = client.try_key(own[-1] if own else 0)
    except PidmlError as error:
        return Check("key", "failed", error.what, error.hint)
    if accepted:
        return Check("key", "ok", "the server accepts this machine's key")
    if own:
        advice = "compare MACHINE_ID and MACHINE_SECRET_KEY with the server's page, or register the machine anew"
        return Check("key", "failed", f"the server refuses the key for task {own[-1]} of this machine", advice)
    advice = "queue a task and run `pidml mock`: this server tells only machines that have had a task"
    return Check("key", "warning", "cannot be tried without claiming a task", advice)


def _server_certificate(base_url: str) -> Check:
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


def _grid(settings: Settings) -> Iterator[Check]:
    grid = FetchOptions.from_env({"PIDML_GRID": settings.grid}).grid
    yield Check("LFNs", "ok", f"looked up in {', '.join(grid)}")
    if "alien" not in grid:
        return
    needed: Literal["warning", "failed"] = "failed" if settings.grid else "warning"
    advice = "install alien.py (`pip install alienpy`), or set PIDML_GRID"
    yield _program("alien_cp", "GRID client", advice, needed)
    found = [path for path in _grid_credentials() if path.is_file()]
    if not found:
        advice = "put usercert.pem and userkey.pem into ~/.globus, or make a token (`alien.py token-init`)"
        yield Check("GRID certificate", needed, "none found", advice)
    for path in found:
        yield _certificate_file(path)


def _grid_credentials() -> list[Path]:
    user, temporary = os.getuid(), Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - where these tools put them
    named = [os.environ.get("JALIEN_TOKEN_CERT"), os.environ.get("X509_USER_PROXY"), os.environ.get("X509_USER_CERT")]
    usual = [
        temporary / f"tokencert_{user}.pem",
        temporary / f"x509up_u{user}",
        Path.home() / ".globus" / "usercert.pem",
    ]
    return [*(Path(text) for text in named if text), *usual]


def _certificate_file(path: Path) -> Check:
    name = f"GRID certificate {path}"
    if shutil.which("openssl") is None:
        return Check(name, "warning", "there, its validity is not known", "install openssl")
    said = _run("openssl", "x509", "-enddate", "-noout", "-in", str(path))
    try:
        until = ssl.cert_time_to_seconds(said.strip().removeprefix("notAfter="))
    except ValueError:
        return Check(name, "failed", "no certificate can be read from it", "replace the file")
    return _expiry(name, until, "renew it (certificates: ca.cern.ch; tokens: `alien.py token-init`)")


def _producer(settings: Settings) -> Iterator[Check]:
    try:
        runtime = resolve(Producer(backend="o2physics"), os.environ | dict(settings.extra))
        found = f"O2Physics by {runtime.kind}"
    except PidmlError as error:
        if settings.producer == "o2physics":
            yield Check("producer", "failed", error.what, error.hint)
            return
        found = "O2Physics is not to be had here"
    if settings.producer == "native":
        found = f"native: nothing else is needed ({found})"
    yield Check("producer", "ok", found)


def _scheduler(settings: Settings) -> Iterator[Check]:
    found = [name for name in ("condor_submit", "sbatch") if shutil.which(name)]
    if settings.site and not found:
        yield Check(
            "scheduler", "warning", f"site {settings.site!r} is set, no batch system is found", "unset PIDML_SITE"
        )
    else:
        yield Check("scheduler", "ok", ", ".join(found) or "none; jobs run here")


def _gpu() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("GPU", "ok", "none; training uses the CPU")
    lines = _run("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").strip().splitlines()
    if not lines:
        return Check("GPU", "warning", "nvidia-smi finds none", "look at the driver (`dmesg`, `nvidia-smi`)")
    return Check("GPU", "ok", "; ".join(lines))


def _program(name: str, what: str, advice: str, otherwise: Literal["warning", "failed"]) -> Check:
    path = shutil.which(name)
    return Check(what, "ok", path) if path else Check(what, otherwise, f"{name} is not installed", advice)


def _run(*command: str) -> str:
    """Return what a program prints, or nothing if it fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_PROGRAM_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
