"""Containers that outlive whoever asked for them: on the record before they start, and ended by name.

A container of docker or podman is no child of the program that starts it, so killing that program leaves the container
running. Its name is therefore written down durably before it starts, in ``<store>/.containers/<name>.json``; whoever
started it holds a lock on that record for as long as it lives. A record that nobody holds is a container left by a
kill: the next run in the same store, and the poller, end it.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pidml.atomic import exclusive, is_held, write_json
from pidml.secret import clean_environment

if TYPE_CHECKING:
    from pidml.producer.o2physics_runtime import Runtime

_ENGINE_SECONDS = 60.0


class _Terminated(BaseException):
    """SIGTERM came while a container ran."""


def records_of(store: Path) -> Path:
    """Return the folder of a store in which running containers are on the record."""
    return store / ".containers"


@contextmanager
def on_record(runtime: Runtime, records: Path, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Keep a container on the record while the block runs it; at the end of the block, however, it is gone.

    SIGTERM ends the container too, and then this process as ever. What earlier processes left is ended first. Does
    nothing for a way to run O2Physics that has no container, or one whose processes are our children.

    Args:
        runtime: how O2Physics runs.
        records: see :func:`records_of`.
        environ: tells the engine where its daemon is.

    Raises:
        DiskFull, StoreError: the record cannot be written; the container must not be started then.
    """
    if not runtime.detached:
        yield
        return
    for said in end_leftovers(records, environ):
        print(said, flush=True)  # noqa: T201 - goes into the step's log
    record = records / f"{runtime.name}.json"
    with exclusive(record):
        write_json(record, {"program": runtime.program, "name": runtime.name, "host": platform.node()})
        try:
            with _terminated_by_exception():
                yield
        except _Terminated:
            _close(record, runtime.program, runtime.name, environ)
            os.kill(os.getpid(), signal.SIGTERM)
            raise  # not reached: the signal has its usual effect again
        finally:
            _close(record, runtime.program, runtime.name, environ)


def end_leftovers(records: Path, environ: Mapping[str, str] = os.environ) -> list[str]:
    """End containers of this host that nobody waits for any more; return what was done, a line each.

    One that cannot be ended stays on the record and is tried again by the next call.
    """
    said = []
    for record in sorted(records.glob("pidml-*.json")):
        try:
            told = json.loads(record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue  # another process was faster
        if told["host"] != platform.node() or is_held(record):
            continue
        if _close(record, told["program"], told["name"], environ):
            said.append(f"container {told['name']}, left by a process that was killed, is ended")
        else:
            engine = Path(told["program"]).name
            said.append(f"container {told['name']} may still run: end it with `{engine} rm --force {told['name']}`")
    return said


def end(program: str, name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """End and remove a container, running or not; tell whether the engine says that it is gone."""
    if _listed(program, name, environ) is False:
        return True
    _engine(environ, program, "rm", "--force", name)
    return _listed(program, name, environ) is False


def _close(record: Path, program: str, name: str, environ: Mapping[str, str]) -> bool:
    gone = not record.exists() or end(program, name, environ)
    if gone:
        record.unlink(missing_ok=True)
        record.with_name(f".{record.name}.lock").unlink(missing_ok=True)
    return gone


def _listed(program: str, name: str, environ: Mapping[str, str]) -> bool | None:
    """Tell whether the engine has such a container; ``None`` if it does not answer."""
    answer = _engine(environ, program, "ps", "--all", "--filter", f"name={name}", "--format", "{{.Names}}")
    return None if answer is None else name in answer.split()


def _engine(environ: Mapping[str, str], *command: str) -> str | None:
    try:
        done = subprocess.run(
            command,
            env=clean_environment(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ENGINE_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@contextmanager
def _terminated_by_exception() -> Iterator[None]:
    """Let SIGTERM raise :class:`_Terminated` once, unless somebody else handles it or this is not the main thread."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def raise_once(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    signal.signal(signal.SIGTERM, raise_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
