"""What a running task leaves in the folder of a claimed job for the poller and ``pidml status``."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pidml import provenance
from pidml.alicetraint.jobs import write_progress
from pidml.atomic import write_json
from pidml.errors import PidmlError


def note_progress(job_directory: Path | None, step: str) -> None:
    """Record which step runs: a sign of life, without which the step goes on. A job of one's own keeps no record."""
    if job_directory is not None:
        with contextlib.suppress(OSError):
            write_progress(job_directory, step, 0.0)


def note_failure(
    job_directory: Path | None, step: str, error: BaseException, log: Path | None = None, code: str = ""
) -> None:
    """Record why a step failed. A full disk must not hide the error itself, so failing to write is not fatal.

    ``code`` is the code of the error behind it, if that tells more than the error's own.
    """
    if job_directory is None:
        return
    record = {
        "step": step,
        "code": code or (error.code if isinstance(error, PidmlError) else ""),
        "what": error.what if isinstance(error, PidmlError) else f"{type(error).__name__}: {error}",
        "hint": error.hint if isinstance(error, PidmlError) else "",
        "expected": isinstance(error, PidmlError),
        "log": str(log) if log else "",
        "when": provenance.now(),
    }
    try:
        write_json(job_directory / "failure.json", record)
    except (OSError, PidmlError) as problem:
        print(f"cannot record the failure: {problem}", flush=True)  # noqa: T201 - goes into the step's log
