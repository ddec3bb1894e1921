"""What the stand-in commands and the stand-in scheduler share: a folder with one JSON file per job.

The commands run without site packages, so only the standard library is imported here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

SPOOL = Path(os.environ.get("STANDIN_SPOOL") or Path(__file__).parent)

#: States in which a job is over.
ENDED = {"COMPLETED", "FAILED", "OUT_OF_MEMORY", "TIMEOUT", "CANCELLED", "NODE_FAIL", "PREEMPTED", "HELD", "OVER_DISK"}
#: Those that keep a job of HTCondor in the queue: it is held.
HOLDABLE = {"HELD", "OUT_OF_MEMORY", "TIMEOUT", "OVER_DISK"}


def next_id(spool: Path = SPOOL) -> int:
    """Return a new job number; law submits from several threads, hence the lock."""
    descriptor = os.open(spool / "counter", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        number = int(os.read(descriptor, 8) or 0) + 1
        os.pwrite(descriptor, f"{number:08d}".encode(), 0)  # in one go: a command may be killed at any moment
        return number
    finally:
        os.close(descriptor)


def save(job: dict[str, Any], spool: Path = SPOOL) -> None:
    """Write a job's record in one go."""
    path = spool / "jobs" / f"{job['id']}.json"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(job))
    temporary.replace(path)


def submit(job: dict[str, Any]) -> None:
    """Hand a job to the scheduler."""
    save(job)
    (SPOOL / "new" / str(job["id"])).touch()


def load(number: int | str, spool: Path = SPOOL) -> dict[str, Any] | None:
    """Return a job's record; None if there is none."""
    try:
        return json.loads((spool / "jobs" / f"{number}.json").read_text())
    except FileNotFoundError:
        return None


def all_jobs(spool: Path = SPOOL) -> list[dict[str, Any]]:
    """Return all records, oldest first."""
    numbers = sorted(int(path.stem) for path in (spool / "jobs").glob("*.json"))
    return [job for job in (load(number, spool) for number in numbers) if job]


def setting(name: str, default: str = "") -> str:
    """Return the content of a file by which a test changes the scheduler's behaviour."""
    try:
        return (SPOOL / "settings" / name).read_text()
    except FileNotFoundError:
        return default


def fail_if_down(message: str) -> None:
    """End the command with an error while the scheduler is said to be down."""
    with (SPOOL / "calls").open("a") as stream:
        stream.write(f"{time.time():.3f} {sys.argv[1]}\n")
    if (SPOOL / "settings" / "down").exists() or use_up(f"fail_{sys.argv[1]}"):
        sys.exit(message)


def kill_submitter_at(number: int) -> None:
    """Kill the submitting process and its children when this submission is reached, before the number is known."""
    if number == int(setting("kill_submitter_at", "0")):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(setting("submitter")), signal.SIGKILL)


def answer_lost() -> bool:
    """Tell whether the answer to this submission is to be lost; nothing may be answered for a while after that."""
    if not use_up("lose_answers"):
        return False
    for name in ("squeue", "condor_q"):
        (SPOOL / "settings" / f"fail_{name}").write_text(setting("then_deaf", "0"))
    return True


def use_up(name: str) -> bool:
    """Tell whether this is still one of so many times; each call uses up one."""
    with (SPOOL / "counter.left").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        left = int(setting(name, "0"))
        if left:
            (SPOOL / "settings" / name).write_text(str(left - 1))
        return left > 0


def visible(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the jobs that the scheduler lists at the moment."""
    hidden = setting("hidden")
    return [job for job in jobs if not hidden or hidden not in job["name"]]
