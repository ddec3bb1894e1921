"""The summary of failed jobs: which branches, why, and where to read on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pidml.batch.status import Cause

#: Jobs that are listed one by one; the others are counted.
LISTED = 20
_TAIL_BYTES = 65536
_OVER_MEMORY = re.compile(r"^slurmstepd.*(exceeded memory limit|oom.kill|Out Of Memory)", re.IGNORECASE | re.MULTILINE)
_OVER_TIME = re.compile(r"^slurmstepd.*DUE TO TIME LIMIT", re.MULTILINE)
_CODE = re.compile(r"failed: \[(P\d+)\]")
_TELLING = re.compile(r"^pidml: |failed: \[P\d+\]|^slurmstepd.*error|^\w*(Error|Exception): ")


def telling_line(log: Path) -> str:
    """Return the last line of a job's log that says why it failed; "" if there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if _TELLING.search(line)), "")


def code_in_log(log: Path) -> str:
    """Return the code of the error of ours that a job's log tells of last; "" if it ended otherwise."""
    found = _CODE.search(telling_line(log))
    return found[1] if found else ""


def cause_in_log(log: Path, offset: int = 0) -> Cause:
    """Return what killed a job according to its log; for schedulers that report every kill as the same failure.

    Slurm without control groups ends a job over its memory with signal 9 and says why only there.

    Args:
        log: the job's log.
        offset: where the part of this attempt begins, in B.
    """
    try:
        with log.open("rb") as stream:
            stream.seek(max(offset, log.stat().st_size - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return Cause.none
    if _OVER_MEMORY.search(text):
        return Cause.memory
    return Cause.time if _OVER_TIME.search(text) else Cause.none


def summary_lines(
    title: str, failed: Mapping[int, Mapping[str, Any]], notes: Mapping[int, Mapping[str, Any]]
) -> list[str]:
    """Return the lines of the summary.

    Args:
        title: of the step.
        failed: law's records of the failed jobs, by number.
        notes: what was learnt about them: factors of memory and time, how often they were lost, history.
    """
    if not failed:
        return []
    lines = [f"===== {title}: {len(failed)} failed job(s)"]
    for number, job in list(failed.items())[:LISTED]:
        log = Path(str(job["extra"].get("log", "")))
        branches = ", ".join(map(str, job["branches"]))
        lines.append(f"branch {branches}: {_reason(job, notes.get(number, {}))}{_attempts(notes.get(number, {}))}")
        if why := telling_line(log):
            lines.append(f"    {why}")
        elif not log.is_file():
            lines.append("    no log was written: the worker may not see the store (`pidml doctor` asks one)")
        taken = str(job["job_id"])[:1].isdigit()
        lines.append(f"    {'job ' + str(job['job_id']) if taken else 'not taken by the scheduler'}, log {log}")
    if len(failed) > LISTED:
        rest = [branch for job in list(failed.values())[LISTED:] for branch in job["branches"]]
        lines.append(f"… and branches {', '.join(map(str, rest[:200]))}{' …' if len(rest) > 200 else ''}")
    return lines


def _reason(job: Mapping[str, Any], note: Mapping[str, Any]) -> str:
    """The scheduler's reason of the last attempt; law only knows that a job has no number."""
    history = note.get("history", [])
    return str((history[-1]["reason"] if history else "") or job["error"] or "failed")


def _attempts(note: Mapping[str, Any]) -> str:
    history = note.get("history", [])
    if len(history) < 2:
        return ""
    raised = ("memory", "time", "disk")
    said = [f"{what} raised {note[what]:g}-fold" for what in raised if note.get(what, 1) > 1]
    return f" ({'; '.join([f'{len(history)} attempts', *said])})"
