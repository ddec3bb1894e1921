"""What became of a job, in terms that do not depend on the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a job is."""

    pending = "pending"
    running = "running"
    finished = "finished"
    failed = "failed"


class Cause(StrEnum):
    """Why a job failed, which decides what is done about it."""

    none = ""
    #: The task itself ended with an error: tried again as often as ``--retries`` says.
    task = "task"
    #: Killed for its memory: tried again with twice as much.
    memory = "memory"
    #: Killed for its time: tried again with twice as much.
    time = "time"
    #: Stopped for the room it took on the worker's disk: tried again with twice as much.
    disk = "disk"
    #: Evicted, preempted, its node died, or nobody knows it any more: not the task's fault, so not counted as a try.
    lost = "lost"
    #: Somebody cancelled it: not tried again.
    cancelled = "cancelled"
    #: It can never start as it was asked for: not tried again.
    impossible = "impossible"


@dataclass(frozen=True)
class JobStatus:
    """What a scheduler says about one job.

    Args:
        state: where the job is.
        cause: why it failed.
        reason: what the scheduler says, for people.
        code: exit code of the job script, if it ended by itself.
        node: where it ran, if known.
        remove: whether the job must be taken out of the queue before it is submitted again (held jobs).
        listed: whether the scheduler lists the job at all.
    """

    state: State
    cause: Cause = Cause.none
    reason: str = ""
    code: int | None = None
    node: str = ""
    remove: bool = False
    listed: bool = True


#: A job that the scheduler did not list for a while; should it turn up again, it must not run beside its successor.
VANISHED = JobStatus(
    State.failed, Cause.lost, "the scheduler does not know the job any more", remove=True, listed=False
)

#: What the exit codes of law's job script mean.
SCRIPT_CODES = {
    5: "an input file of the job could not be prepared",
    10: "the dashboard file failed",
    20: "the worker cannot run this job (bootstrap failed)",
    30: "the worker cannot run this job (bootstrap command failed)",
    40: "law is not installed on the worker",
    50: "what the branch needs is not there on the worker",
    60: "the task failed",
    70: "stage-out failed",
    80: "stage-out failed",
}
#: Signal by which Slurm says that a job's log could not be opened where it was to run.
_NO_LOG = 53


def explain_code(code: int) -> str:
    """Return what an exit code of the job script means.

    >>> explain_code(60), explain_code(137)
    ('the task failed (exit code 60)', 'killed by signal 9')
    """
    if code == 128 + _NO_LOG:
        return "the worker could not write the job's log: it must see the store"
    if code > 128:
        return f"killed by signal {code - 128}"
    return f"{SCRIPT_CODES.get(code, 'the job script failed')} (exit code {code})"
