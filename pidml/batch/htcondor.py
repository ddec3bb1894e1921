"""What HTCondor says about jobs.

Attributes are those of the manual's appendix "Job ClassAd Attributes", which also lists the codes of
``HoldReasonCode``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pidml.batch.commands import run_command
from pidml.batch.journal import not_before
from pidml.batch.status import Cause, JobStatus, State, explain_code

COMMANDS = ("condor_submit", "condor_q", "condor_history", "condor_rm")
#: Attribute by which a submission is found again when its answer was lost.
TOKEN = "PidmlToken"  # noqa: S105 - a name

ATTRIBUTES = (
    "ClusterId", "ProcId", "JobStatus", "ExitCode", "ExitBySignal", "ExitSignal", "HoldReason", "HoldReasonCode",
    "RemoveReason", "RemoteHost", "LastRemoteHost", "NumJobStarts", "MemoryUsage", TOKEN,
)  # fmt: skip

#: Errors of ``condor_submit`` that no second attempt mends.
PERMANENT = (
    "error: failed to parse",
    "syntax error",
    "no such file or directory",
    "error: invalid",
    "must be specified",
    "submission from eos",
    "root is not allowed",
    "no 'executable'",
    "can't open",
)

_IDLE, _RUNNING, _REMOVED, _COMPLETED, _HELD, _TRANSFERRING, _SUSPENDED = 1, 2, 3, 4, 5, 6, 7
#: HoldReasonCode of ``condor_hold``: a person wants the job to wait.
_HELD_BY_USER = {1, 15}
#: HoldReasonCode 34: the job used more than it asked for, of memory unless the reason says otherwise; 46: longer than
#: allowed_job_duration; 47: likewise.
_HELD_FOR_MEMORY = {34}
_HELD_FOR_TIME = {46, 47}
_DISK = re.compile(r"disk.{0,20}(usage|limit|exceed)|(over|exceeded).{0,30}disk|request_?disk", re.IGNORECASE)
_MEMORY = re.compile(r"memory|out.of.mem|oom", re.IGNORECASE)
_TIME = re.compile(r"wall.?(clock|time)|run.?time|duration|maxruntime|time (limit|exceeded)", re.IGNORECASE)


def classify(ad: Mapping[str, Any]) -> JobStatus:
    """Return what the attributes of a job mean.

    >>> classify({"JobStatus": 7}).state
    <State.running: 'running'>
    >>> classify({"JobStatus": 5, "HoldReasonCode": 34, "HoldReason": "Job has gone over memory limit"}).cause
    <Cause.memory: 'memory'>
    """
    status = ad.get("JobStatus")
    node = str(ad.get("RemoteHost") or ad.get("LastRemoteHost") or "").rsplit("@", 1)[-1]
    if status in (0, _IDLE):
        evicted = int(ad.get("NumJobStarts") or 0) > 0
        return JobStatus(State.pending, reason="evicted, waits for another slot" if evicted else "", node=node)
    # Transferring output and suspended are stages of a job that lives.
    if status in (_RUNNING, _TRANSFERRING, _SUSPENDED):
        return JobStatus(State.running, node=node)
    if status == _HELD:
        return _held(str(ad.get("HoldReason") or "held"), int(ad.get("HoldReasonCode") or 0), node)
    if status == _REMOVED:
        reason = str(ad.get("RemoveReason") or "removed")
        return JobStatus(State.failed, _removed(reason, ad), reason, node=node)
    if status == _COMPLETED:
        return _completed(ad, node)
    return JobStatus(State.failed, Cause.lost, f"unknown JobStatus {status}", node=node)


def _held(reason: str, code: int, node: str) -> JobStatus:
    """A held job never starts by itself; unless a person holds it, it is removed and submitted again."""
    if code in _HELD_BY_USER:
        return JobStatus(State.pending, reason=f"held: {reason}", node=node)
    if _DISK.search(reason):
        cause = Cause.disk
    elif code in _HELD_FOR_MEMORY or _MEMORY.search(reason):
        cause = Cause.memory
    elif code in _HELD_FOR_TIME or _TIME.search(reason):
        cause = Cause.time
    else:
        cause = Cause.lost
    return JobStatus(State.failed, cause, f"held: {reason}", node=node, remove=True)


def _removed(reason: str, ad: Mapping[str, Any]) -> Cause:
    said = f"{reason} {ad.get('HoldReason') or ''}"
    if "condor_rm" in reason:
        return Cause.cancelled
    if _DISK.search(said):
        return Cause.disk
    if _MEMORY.search(said):
        return Cause.memory
    return Cause.time if _TIME.search(said) else Cause.cancelled


def _completed(ad: Mapping[str, Any], node: str) -> JobStatus:
    if ad.get("ExitBySignal"):
        # Without this look a job ended by a signal passes for a success: its ExitCode is undefined.
        return JobStatus(State.failed, Cause.task, f"killed by signal {ad.get('ExitSignal')}", node=node)
    code = int(ad.get("ExitCode") or 0)
    if code:
        return JobStatus(State.failed, Cause.task, explain_code(code), code, node)
    return JobStatus(State.finished, code=0, node=node)


def query(jobs: Sequence[str]) -> dict[str, JobStatus]:
    """Return what HTCondor knows about jobs (``cluster.process``); those that it does not know are left out.

    Raises:
        BatchError: ``condor_q`` or ``condor_history`` failed.
    """
    options = ["-json", "-attributes", ",".join(ATTRIBUTES)]
    found = parse_json(run_command(["condor_q", *jobs, *options]))
    if missing := [job for job in jobs if job not in found]:
        found |= parse_json(run_command(["condor_history", *missing, *options, "-limit", str(len(missing))]))
    return {job: classify(ad) for job, ad in found.items()}


def parse_json(out: str) -> dict[str, dict[str, Any]]:
    """Return the jobs in the output of ``condor_q -json``, which prints nothing at all when there are none."""
    ads = json.loads(out) if out.strip() else []
    return {f"{ad['ClusterId']}.{ad['ProcId']}": ad for ad in ads if "ClusterId" in ad and "ProcId" in ad}


def find(tokens: Sequence[str]) -> dict[str, str]:
    """Return the jobs that carry the given tokens, for submissions whose answer was lost.

    Raises:
        BatchError: ``condor_q`` or ``condor_history`` failed.
    """
    listed = ",".join(tokens)
    selection = [
        "-constraint",
        f'stringListMember({TOKEN}, "{listed}") =?= true',
        "-json",
        "-attributes",
        ",".join(ATTRIBUTES),
    ]
    found = parse_json(run_command(["condor_q", *selection]))
    if len(found) < len(tokens):
        # Without a bound all history would be read for a job that was never submitted; it is read backwards in time.
        since = f"EnteredCurrentStatus < {not_before(tokens):.0f}"
        found |= parse_json(run_command(["condor_history", *selection, "-since", since, "-limit", str(len(tokens))]))
    return {str(ad[TOKEN]): job for job, ad in found.items() if TOKEN in ad}


def cancel(jobs: Sequence[str]) -> None:
    """Take jobs out of the queue.

    Raises:
        BatchError: ``condor_rm`` failed.
    """
    run_command(["condor_rm", *jobs], accept=["couldn't find", "not found", "no jobs"])
