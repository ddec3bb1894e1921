"""``pidml doctor``: what this machine needs to work, whether it has it, and what to do if not."""

from __future__ import annotations

import email.utils
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Literal
from urllib.parse import urlsplit

from pidml.alicetraint.client import AliceTraINTClient
from pidml.alicetraint.jobs import all_jobs
from pidml.alicetraint.transport import Answer, Retry
from pidml.atomic import write_text
from pidml.errors import PidmlError
from pidml.fetch import FetchOptions
from pidml.poller.certificates import (
    ccdb_certificate,
    certificate_file,
    grid_credentials,
    run_program,
    server_certificate,
)
from pidml.poller.checks import Check, quota_checks, site_checks
from pidml.poller.disk import free_bytes
from pidml.poller.lock import poller_running
from pidml.producer.containers import records_of
from pidml.producer.o2physics_runtime import ENGINES, Runtime, resolve
from pidml.settings import GIB, Settings
from pidml.spec.data_sections import Producer

_SKEW_WARNING, _SKEW_FAILED = 30.0, 300.0
_RENEW = "renew it (certificates: ca.cern.ch; tokens: `alien.py token-init`)"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def doctor(settings: Settings) -> list[Check]:
    """Look at everything that a training machine needs; claims no task and changes nothing on the server."""
    configuration = list(_configuration(settings))
    checks = [*configuration, *_store(settings), *quota_checks(settings.store, settings.limits.min_free)]
    if configuration[0].outcome == "ok":
        checks += _server(settings)
    environ = dict(settings.extra) | os.environ
    checks += [*_grid(settings), *ccdb_certificate(environ), _tools(environ), *_producer(settings, environ)]
    return [*checks, *_containers(settings), *_scheduler(settings, environ), _gpu()]


def _configuration(settings: Settings) -> Iterator[Check]:
    if not (settings.base_url or settings.machine_id or settings.secret):
        advice = "for a training machine set MACHINE_ID, MACHINE_SECRET_KEY and ALICETRAINT_BASE_URL"
        yield Check("configuration", "warning", "no server: this machine runs jobs of its own only", advice)
        return
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
        yield server_certificate(client.address.base_url)


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


def _grid(settings: Settings) -> Iterator[Check]:
    grid = FetchOptions.from_env({"PIDML_GRID": settings.grid}).grid
    yield Check("LFNs", "ok", f"looked up in {', '.join(grid)}")
    if "alien" not in grid:
        return
    needed: Literal["warning", "failed"] = "failed" if settings.grid else "warning"
    advice = "install alien.py (`pip install alienpy`), or set PIDML_GRID"
    yield _program("alien_cp", "GRID client", advice, needed)
    found = [path for path in grid_credentials() if path.is_file()]
    if not found:
        advice = "put usercert.pem and userkey.pem into ~/.globus, or make a token (`alien.py token-init`)"
        yield Check("GRID certificate", needed, "none found", advice)
    for path in found:
        yield certificate_file(f"GRID certificate {path}", path, _RENEW)


def _producer(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    try:
        runtime = resolve(Producer(backend="o2physics"), environ)
    except PidmlError as error:
        if settings.producer == "o2physics":
            yield Check("producer", "failed", error.what, error.hint)
        else:
            yield Check("producer", "ok", "native: nothing else is needed (O2Physics is not to be had here)")
        return
    found = f"O2Physics by {runtime.kind}"
    if runtime.kind == "container":
        found += f" {runtime.image} in {runtime.engine}"
    if settings.producer == "native":
        found = f"native: nothing else is needed ({found})"
    yield Check("producer", "ok", found)
    if runtime.kind == "container":
        yield _engine(runtime, needed=settings.producer == "o2physics")


def _engine(runtime: Runtime, needed: bool) -> Check:
    """A client that is installed says little: the daemon behind it may be off, or closed to this user."""
    question = ("--version",) if runtime.engine == "apptainer" else ("version", "--format", "{{.Server.Version}}")
    said = run_program(runtime.program, *question).strip()
    if said:
        return Check("container runtime", "ok", f"{runtime.program} ({said.splitlines()[0]})")
    advice = f"start it, and let this user use it (`{runtime.engine} version` must answer)"
    return Check("container runtime", "failed" if needed else "warning", f"{runtime.program} does not answer", advice)


def _tools(environ: Mapping[str, str]) -> Check:
    """What is installed of what a training machine may use; what is needed and absent has a line of its own."""
    names = ("alien.py", "alien_cp", "alienv", *ENGINES)
    found = [name for name in names if shutil.which(name, path=environ.get("PATH"))]
    return Check("tools", "ok", f"{', '.join(found) or 'none'} of {', '.join(names)}")


def _containers(settings: Settings) -> Iterator[Check]:
    names = [path.stem for path in records_of(settings.store).glob("pidml-*.json")]
    if names and not poller_running(settings.store):
        advice = "the next poller, or the next run of the producer, ends those that nobody waits for"
        yield Check("containers", "warning", f"on the record as running: {', '.join(names)}", advice)


def _scheduler(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    if settings.site:
        yield from site_checks(settings.site, settings.store, environ=environ)
        return
    found = [name for name in ("condor_submit", "sbatch") if shutil.which(name)]
    there = f"{', '.join(found)} found, not used (PIDML_SITE is not set): " if found else ""
    yield Check("scheduler", "ok", f"{there}jobs run here")


def _gpu() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("GPU", "ok", "none; training uses the CPU")
    lines = run_program("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader").strip().splitlines()
    if not lines:
        return Check("GPU", "warning", "nvidia-smi finds none", "look at the driver (`dmesg`, `nvidia-smi`)")
    return Check("GPU", "ok", "; ".join(lines))


def _program(name: str, what: str, advice: str, otherwise: Literal["warning", "failed"]) -> Check:
    path = shutil.which(name)
    return Check(what, "ok", path) if path else Check(what, otherwise, f"{name} is not installed", advice)
