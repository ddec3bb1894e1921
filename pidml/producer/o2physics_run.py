"""One run of a chain: started, shown line by line, ended in time, and judged by the status of every stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from pidml.errors import ProducerError, ToolMissing
from pidml.fetch.redaction import redacted_text
from pidml.producer import containers
from pidml.producer.o2physics_runtime import Runtime
from pidml.secret import clean_environment

_SHOWN_LINES, _SHOWN_CHARACTERS = 8, 1200
_TERM_SECONDS = 10.0
_PIPE_BROKEN = 128 + signal.SIGPIPE


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended: its place in the chain (from 0), exit status and program."""

    number: int
    status: int
    program: str

    def __str__(self) -> str:
        return f"stage {self.number + 1} ({self.program}) {explain_status(self.status)}"


def explain_status(status: int) -> str:
    """Say what a shell's exit status means.

    >>> explain_status(3), explain_status(139)
    ('ended with status 3', 'was killed by SIGSEGV')
    """
    try:
        return f"was killed by {signal.Signals(status - 128).name}" if status > 128 else f"ended with status {status}"
    except ValueError:
        return f"ended with status {status}"


def run(
    runtime: Runtime,
    command: Sequence[str],
    folder: Path,
    seconds: float,
    records: Path,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Run the chain prepared in ``folder``; its output goes where this process's goes.

    Args:
        runtime: how O2Physics runs.
        command: what :meth:`Runtime.command` returned.
        folder: the prepared folder.
        seconds: longest time.
        records: where containers are on the record (:func:`pidml.producer.containers.records_of`).
        environ: the environment.

    Raises:
        ToolMissing: programs of O2Physics are not installed.
        ProducerError: a stage failed, the environment could not be entered, or the time was over.
        DiskFull, StoreError: the container cannot be put on the record.
    """
    last: deque[str] = deque(maxlen=_SHOWN_LINES)
    # The chain stays in this process's group: whoever ends the group (a poller, a batch system) ends the chain too.
    with (
        containers.on_record(runtime, records, environ),
        subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdout is not None
        shown = threading.Thread(target=_show, args=(process.stdout, last), name="o2physics-output", daemon=True)
        shown.start()
        try:
            status = process.wait(timeout=seconds)
        except BaseException as error:
            _end(process, runtime, environ)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ProducerError(
                    f"O2Physics was not done after {seconds / 3600:g} h: {_said(last)}",
                    "see the step's log; producer.max_hours sets the limit",
                ) from None
            raise
        shown.join(timeout=_TERM_SECONDS)
    judge(status if status >= 0 else 128 - status, folder, _said(last))


def judge(status: int, folder: Path, said: str) -> None:
    """Raise what the exit status of a run and the files that it left mean.

    A stage that ends early takes the others with it: those before it find their pipe broken, those after it read half
    a description. So the first stage that failed otherwise than by a broken pipe is the one that died.
    """
    missing = folder / "missing.txt"
    if missing.is_file():
        names = missing.read_text(encoding="utf-8", errors="replace").split()
        raise ToolMissing(
            f"this O2Physics does not have {', '.join(names)}",
            "is producer.o2physics_version right, and does producer.chain (current or older) fit it?",
        )
    if status == 0:
        return
    ends = stage_ends(folder)
    failed = [end for end in ends if end.status]
    if not failed:
        raise ProducerError(
            f"O2Physics could not be entered: the command {explain_status(status)}"
            + (" after its stages ended well" if ends else " before the first stage")
            + f": {said}",
            "see the step's log; `law run ProduceTracks … --print-command all` shows the command",
        )
    died = next((end for end in failed if end.status != _PIPE_BROKEN), failed[0])
    others = [str(end.number + 1) for end in failed if end != died]
    raise ProducerError(
        f"O2Physics failed: {died}" + (f" (then also stages {', '.join(others)})" if others else "") + f": {said}",
        "see the step's log, and that the AO2D files, producer.chain and the O2Physics version fit together",
    )


def stage_ends(folder: Path) -> list[StageEnd]:
    """Return how the stages of a run ended, in the order of the chain; stages that never ended are absent."""
    path = folder / "statuses.txt"
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        number, status, program = line.split(maxsplit=2)
        found.append(StageEnd(int(number), int(status), program))
    return sorted(found, key=lambda end: end.number)


def loaded(folder: Path) -> dict[str, str]:
    """Return which O2Physics was loaded, as far as its environment tells."""
    path = folder / "environment.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    modules = [name for name in values.get("LOADEDMODULES", "").split(":") if name.split("/")[0] in ("O2Physics", "O2")]
    found = {"root": values.get("O2PHYSICS_ROOT", ""), "modules": ":".join(modules)}
    return {name: value for name, value in found.items() if value}


def _show(stream: IO[bytes], last: deque[str]) -> None:
    """Pass the output on line by line, and remember the end of it."""
    for raw in stream:
        line = redacted_text(raw.decode("utf-8", errors="replace").rstrip("\n"))
        print(line, file=sys.stdout, flush=True)  # noqa: T201 - goes into the step's log
        if line.strip():
            last.append(line.strip()[:300])


def _said(last: deque[str]) -> str:
    return " / ".join(last)[-_SHOWN_CHARACTERS:] or "(it printed nothing)"


def _end(process: subprocess.Popen[bytes], runtime: Runtime, environ: Mapping[str, str]) -> None:
    """End the chain with everything that it started."""
    try:
        own = psutil.Process(process.pid)
        tree = [*own.children(recursive=True), own]
    except psutil.NoSuchProcess:
        tree = []
    if runtime.detached:
        containers.end(runtime.program, runtime.name, environ)
    for act in (psutil.Process.terminate, psutil.Process.kill):
        for each in tree:
            try:
                act(each)
            except psutil.NoSuchProcess:
                continue
        _, tree = psutil.wait_procs(tree, timeout=_TERM_SECONDS)
