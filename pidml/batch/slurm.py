"""What Slurm says about jobs.

States are those of ``squeue(1)`` and ``sacct(1)``, section JOB STATE CODES; reasons of pending jobs are those of
``squeue(1)``, JOB REASON CODES.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence

from pidml.batch.commands import run_command
from pidml.batch.journal import not_before
from pidml.batch.status import Cause, JobStatus, State, explain_code
from pidml.errors import BatchUnavailable, ToolMissing

COMMANDS = ("sbatch", "squeue", "scancel")

_PENDING = {"CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
# A suspended or stopped job keeps its place and goes on later; it has not failed.
_RUNNING = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING"}
_FAILED = {
    "OUT_OF_MEMORY": Cause.memory,
    "TIMEOUT": Cause.time,
    "DEADLINE": Cause.time,
    "NODE_FAIL": Cause.lost,
    "BOOT_FAIL": Cause.lost,
    "PREEMPTED": Cause.lost,
    "REVOKED": Cause.lost,
    "LAUNCH_FAILED": Cause.lost,
    "CANCELLED": Cause.cancelled,
    "FAILED": Cause.task,
}
#: A pending job with one of these reasons never starts by itself.
_NEVER_STARTS = {
    "BadConstraints",
    "PartitionConfig",
    "PartitionTimeLimit",
    "PartitionNodeLimit",
    "InvalidAccount",
    "InvalidQOS",
    "DependencyNeverSatisfied",
    "AccountNotAllowed",
    "QOSNotAllowed",
}
#: Held by Slurm itself after a failed start; only an administrator would release it.
_HELD_AFTER_FAILURE = {"launch_failed_requeued_held", "launch failed requeued held", "JobHoldMaxRequeue"}

#: Errors of ``sbatch`` that no second attempt mends.
PERMANENT = (
    "invalid partition",
    "invalid account",
    "invalid qos",
    "requested node configuration is not available",
    "requested time limit is invalid",
    "more processors requested than permitted",
    "memory specification can not be satisfied",
    "invalid generic resource",
    "unrecognized option",
    "invalid option",
    "unable to open file",
    "batch job submission failed: access/permission denied",
    "user's group not permitted",
)


def classify(state: str, code: int | None = None, reason: str = "", node: str = "") -> JobStatus:
    """Return what a state of Slurm means.

    Args:
        state: as ``squeue`` or ``sacct`` print it, such as ``RUNNING``, ``CANCELLED by 1000`` or ``CANCELLED+``.
        code: exit code of the batch script; above 128 it was ended by a signal.
        reason: the reason that is given with the state.
        node: list of nodes.

    >>> classify("CANCELLED by 1000").cause
    <Cause.cancelled: 'cancelled'>
    >>> classify("SUSPENDED").state
    <State.running: 'running'>
    """
    name = (state.split() or [""])[0].rstrip("+")
    if name in _PENDING:
        return _waiting(reason)
    if name in _RUNNING:
        return JobStatus(State.running, reason=reason, node=node)
    if name == "COMPLETED" and not code:
        return JobStatus(State.finished, code=0, node=node)
    return _failure(name, code, reason, node)


def _waiting(reason: str) -> JobStatus:
    if reason in _NEVER_STARTS:
        return JobStatus(State.failed, Cause.impossible, f"can never start: {reason}", remove=True)
    if reason in _HELD_AFTER_FAILURE:
        return JobStatus(State.failed, Cause.lost, f"held by Slurm ({reason})", remove=True)
    return JobStatus(State.pending, reason=reason)


def _failure(name: str, code: int | None, reason: str, node: str) -> JobStatus:
    if name == "FAILED" and reason in _NEVER_STARTS:
        return JobStatus(State.failed, Cause.impossible, f"can never start: {reason}")
    cause = _FAILED.get(name, Cause.task)
    if name == "FAILED" and code == 125 + 128:
        cause = Cause.memory  # some configurations report an out-of-memory kill as signal 125
    if name in ("COMPLETED", "FAILED") and code:
        return JobStatus(State.failed, cause, explain_code(code), code, node)
    said = "" if reason in ("", "None", "(null)") else f" ({reason})"
    return JobStatus(State.failed, cause, f"{name or 'no state'}{said}", code or None, node)


def query(jobs: Sequence[int]) -> dict[int, JobStatus]:
    """Return what Slurm knows about jobs; those that it does not know are left out.

    Raises:
        BatchError: ``squeue`` or ``sacct`` failed.
    """
    numbers = ",".join(map(str, jobs))
    # squeue also lists jobs that ended a few minutes ago (MinJobAge), so that sacct is needed only for older ones.
    out = run_command(
        ["squeue", "--noheader", "--states=all", "--format=%A|%T|%r|%N", f"--jobs={numbers}"], accept=["invalid job id"]
    )
    seen = parse_squeue(out)
    settled = {number for number, status in seen.items() if status.state is not State.finished and not _ended(status)}
    ended = [number for number in jobs if number not in settled]
    recorded = accounting([f"--jobs={','.join(map(str, ended))}"]) if ended else {}
    # A job that waits or runs is in the queue. What the accounting says of one that is not is a record that lags behind
    # or was never closed: Slurm's own word for it is a runaway job.
    over = (State.finished, State.failed)
    found = seen | {number: status for number, status in recorded.items() if status.state in over}
    return found | {number: _with_code(number, found[number]) for number in ended if number in found}


def _ended(status: JobStatus) -> bool:
    """Whether the accounting knows more about a job: it has ended by itself or was ended."""
    return status.state is State.failed and not status.remove


def _with_code(number: int, status: JobStatus) -> JobStatus:
    """Return a failed job's status with its exit code, which the controller knows before the accounting does."""
    if status.state is not State.failed or status.cause is not Cause.task or status.code is not None:
        return status
    try:
        shown = run_command(["scontrol", "--oneliner", "show", "job", str(number)], accept=["invalid job id"])
    except (BatchUnavailable, ToolMissing):  # what is known suffices to go on; the code only explains it
        return status
    found = re.search(r"\bExitCode=(\d+):(\d+)", shown)
    code = _code(*found.groups()) if found else 0
    return classify("FAILED", code, node=status.node) if code else status


def _code(code: str, signal: str) -> int:
    """Return an exit code as a shell does: above 128 if a signal ended the script."""
    return int(code or 0) or (128 + int(signal) if signal.isdigit() and int(signal) else 0)


def parse_squeue(out: str) -> dict[int, JobStatus]:
    """Return the jobs in the output of ``squeue --format=%A|%T|%r|%N``."""
    rows = (line.split("|") for line in out.splitlines())
    return {
        int(row[0]): classify(row[1], reason=row[2], node=row[3])
        for row in rows
        if len(row) == 4 and row[0].strip().isdigit()
    }


def accounting(selection: Sequence[str]) -> dict[int, JobStatus]:
    """Return ended jobs from Slurm's accounting; empty where the site keeps none."""
    command = [
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        "--format=JobIDRaw,State,ExitCode,Reason,NodeList",
    ]
    out = run_command([*command, *selection], accept=["accounting storage is disabled", "sacct is not installed"])
    return parse_sacct(out)


def parse_sacct(out: str) -> dict[int, JobStatus]:
    """Return the jobs in the output of ``sacct --parsable2 --format=JobIDRaw,State,ExitCode,Reason,NodeList``."""
    found = {}
    for line in out.splitlines():
        row = line.split("|")
        if len(row) < 5 or not row[0].isdigit():
            continue
        code, _, signal = row[2].partition(":")
        found[int(row[0])] = classify(row[1], _code(code, signal), row[3], row[4])
    return found


def find(names: Sequence[str]) -> dict[str, int]:
    """Return the numbers of the jobs with the given tokens as names, for submissions whose answer was lost.

    Raises:
        BatchError: ``squeue`` or ``sacct`` failed.
    """
    wanted = ",".join(names)
    rows = run_command(["squeue", "--noheader", "--states=all", "--format=%j|%A", f"--name={wanted}"]).splitlines()
    columns = ["--noheader", "--parsable2", "--allocations", "--format=JobName,JobIDRaw"]
    seconds = min(time.time() - not_before(names), 30 * 86400)
    rows += run_command(
        ["sacct", *columns, f"--name={wanted}", f"--starttime=now-{math.ceil(seconds)}seconds"],
        accept=["accounting storage is disabled"],
    ).splitlines()
    pairs = (row.rsplit("|", 1) for row in rows if "|" in row)
    return {name: int(number) for name, number in pairs if name in names and number.strip().isdigit()}


def cancel(jobs: Sequence[int]) -> None:
    """Take jobs out of the queue.

    Raises:
        BatchError: ``scancel`` failed.
    """
    run_command(["scancel", *map(str, jobs)], accept=["invalid job id"])
