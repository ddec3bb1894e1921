"""What a submitter that is no more left in the queue: finding it, and taking it out."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pidml.batch import htcondor, slurm
from pidml.batch.journal import Journal
from pidml.batch.registry import Entry, all_entries
from pidml.batch.status import JobStatus, State

SYSTEMS: dict[str, ModuleType] = {"slurm": slurm, "htcondor": htcondor}
#: Longest time, in s, that a submission takes to arrive after its submitter has died or given up.
IN_FLIGHT = 5.0


def wait_for_arrival(written: float) -> None:
    """Wait until a submission that was on its way when its submitter died has arrived.

    Args:
        written: when it was written down, in s since the epoch.
    """
    time.sleep(max(0.0, min(IN_FLIGHT, written + IN_FLIGHT - time.time())))


def living(entry: Entry, tokens: Collection[str]) -> dict[str, Any]:
    """Return token → number of those of a run's submissions that wait or run.

    Args:
        entry: what the run wrote down.
        tokens: the submissions that matter.

    Raises:
        BatchError: the scheduler does not answer.
    """
    numbers = {token: number for token, number in Journal(entry.journal).known().items() if token in tokens}
    system = SYSTEMS[entry.system]
    if unknown := [token for token in tokens if token not in numbers]:
        wait_for_arrival(entry.path.stat().st_mtime)
        for chunk in _chunks(unknown, 100):
            numbers |= system.find(chunk)
    status: dict[Any, JobStatus] = {}
    for chunk in _chunks(numbers.values(), 500):
        status |= system.query(chunk)
    waits = (State.pending, State.running)
    return {token: number for token, number in numbers.items() if number in status and status[number].state in waits}


def cancel_jobs_of(root: Path, job: str) -> int:
    """Take out of the queue what ended runs of a job left there, and forget it; return how many jobs that were.

    Args:
        root: of the store.
        job: the job, as it is indexed.

    Raises:
        BatchError: the scheduler does not answer; nothing is forgotten then.
    """
    count = 0
    for entry in all_entries(root):
        if entry.job != job or entry.alive:
            continue
        numbers = list(living(entry, entry.jobs).values())
        for chunk in _chunks(numbers, 100):
            SYSTEMS[entry.system].cancel(chunk)
        for path in (entry.state, entry.journal, entry.path):
            path.unlink(missing_ok=True)
        count += len(numbers)
    return count


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    listed = list(items)
    return (listed[start : start + size] for start in range(0, len(listed), size))
