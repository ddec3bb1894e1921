"""What an earlier life of the poller left: jobs that are not done with, processes, containers."""

from __future__ import annotations

import logging
import os

from pidml.alicetraint.jobs import JobDirectory, State, all_jobs
from pidml.errors import StoreError
from pidml.poller.process import end_leftovers
from pidml.poller.verdict import Reason, Verdict
from pidml.producer import containers
from pidml.settings import Settings

logger = logging.getLogger(__name__)


def recover(job: JobDirectory, most_lives: int) -> tuple[State, Verdict | None]:
    """Take up a job that was running when the poller died: end its processes, and count the death.

    Args:
        job: the job.
        most_lives: deaths without progress between them after which the job is given up.

    Returns:
        Its new state, and how it is to be finished if it is given up.

    Raises:
        StoreError: a process cannot be ended, or the state cannot be written.
    """
    state = job.state()
    killed = end_leftovers(job.path)
    mark = job.progress_mark()
    lives = 1 if mark != state.progress else state.lives + 1
    logger.warning("task %d was running when the poller died (%d processes ended)", job.task_id, killed)
    state = job.save(state.but(phase="claimed", lives=lives, progress=mark))
    if lives <= most_lives:
        return state, None
    what = f"the poller died {lives} times while it ran this task, without progress between"
    return state, Verdict("failed", Reason("P900", what, "look at the machine's own log: memory, disk, kernel"))


def end_containers(settings: Settings) -> None:
    """End containers that jobs left behind; one that cannot be ended is said and tried again after the next job."""
    for said in containers.end_leftovers(containers.records_of(settings.store), dict(settings.extra) | os.environ):
        logger.warning("%s", said)


def open_jobs(settings: Settings) -> list[JobDirectory]:
    """Return the jobs that are not done with, oldest claim first; a damaged one is complained about and left alone."""
    found: list[tuple[float, JobDirectory]] = []
    for job in all_jobs(settings.store):
        try:
            state = job.state()
        except StoreError as error:
            logger.error("task %d is left alone: %s", job.task_id, error)
            continue
        if state.phase != "reported":
            found.append((state.claimed, job))
    return [job for _, job in sorted(found, key=lambda pair: pair[0])]
