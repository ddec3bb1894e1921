"""The log that tells a person why a task failed, and the order in which a job's end is reported."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pidml
from pidml.alicetraint.client import AliceTraINTClient, check_name
from pidml.alicetraint.jobs import JobDirectory, State, read_json
from pidml.alicetraint.outbox import flush, report_status, upload_files, waiting, withdraw_status
from pidml.alicetraint.receipts import Upload, refusals
from pidml.atomic import write_text
from pidml.errors import ServerRefused, StoreError
from pidml.poller.verdict import Reason
from pidml.secret import Secret
from pidml.server.protocol import FileType, TaskStatus

TAIL_BYTES = 256 * 1024
MAX_STEP_LOGS = 200
MAX_STEP_LOG_BYTES = 8 * 1024 * 1024


def failure_log(job: JobDirectory) -> Path:
    """Return where the log with the reason of a failure lies; its name is unique per task on the server."""
    return job.path / f"failure_task{job.task_id}.log"


def write_failure_log(job: JobDirectory, reason: Reason, state: State, secret: Secret) -> None:
    """Write the log that says why a job failed: the reason first, then the end of what it printed.

    Written once; a poller that was killed meanwhile finds it and sends that, not a second one.
    """
    path = failure_log(job)
    if path.exists():
        return
    lines = [
        f"Task {job.task_id} failed" + (f" in step {reason.step}" if reason.step else ""),
        "",
        f"[{reason.code}] {reason.what}",
        *([f"  → {reason.hint}"] if reason.hint else []),
        "",
        f"machine   {platform.node()}, pidml {pidml.__version__}, Python {platform.python_version()}",
        f"time      {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}",
        f"runs      {state.runs}",
        *_refused_lines(job),
        "",
        "End of the job's log:" if job.log_file.exists() else "The job was not started.",
        _tail(job.log_file),
    ]
    _keep_step_log(job, secret)
    write_text(path, secret.mask("\n".join(lines)) + "\n")


def _keep_step_log(job: JobDirectory, secret: Secret) -> None:
    """Copy the end of the failed step's own log, which jobs share and which may change, to this job's logs."""
    try:
        told = read_json(job.failure_file)
    except StoreError:
        return  # the step was killed while it wrote why; its log is named nowhere else
    log = Path(str((told or {}).get("log") or ""))
    if not log.is_absolute() or log.suffix != ".log" or not log.is_file():
        return
    write_text(job.logs / "failed_step.log", secret.mask(_tail(log, MAX_STEP_LOG_BYTES)))


def _refused_lines(job: JobDirectory) -> Iterator[str]:
    for item in refusals(job):
        yield f"refused   {item.get('name')}: {item.get('why')}"


def _tail(path: Path, limit: int = TAIL_BYTES) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - limit))
            return stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def report_end(job: JobDirectory, client: AliceTraINTClient, state: State) -> State:
    """Tell the server how a finished job ended, after everything else that it is owed; return the new state.

    The phase becomes ``reported`` when nothing is owed any more, and stays ``finished`` while the server cannot be
    reached. A completed job of which the server refuses a result becomes a failed one.

    Raises:
        ServerError: something could not be sent now; it stays in the outbox.
    """
    if state.outcome == "completed":
        try:
            report_status(job.path, client, TaskStatus.COMPLETED)
        except ServerRefused:
            return _report_refused(job, client, state)
    else:
        _report_failed(job, client)
    outcome = flush(job.path, client)
    if outcome.withheld:
        return _report_refused(job, client, state)
    if outcome.error is not None:
        raise outcome.error
    return state if waiting(job) else job.save(state.but(phase="reported"))


def _report_failed(job: JobDirectory, client: AliceTraINTClient) -> None:
    log = failure_log(job)
    uploads = [Upload(log, log.name, FileType.LOG, "why this task failed")] if log.exists() else []
    uploads += [Upload(path, path.name, FileType.LOG, "log of a step") for path in _step_logs(job)]
    with suppress(ServerRefused):  # kept in `refused` and logged; the status is what matters now
        upload_files(job.path, client, uploads)
    report_status(job.path, client, TaskStatus.FAILED)


def _step_logs(job: JobDirectory) -> Iterator[Path]:
    for path in sorted(job.logs.glob("*.log"))[:MAX_STEP_LOGS] if job.logs.is_dir() else ():
        try:
            check_name(path.name)
        except StoreError:
            continue
        if path.is_file():
            yield path


def _report_refused(job: JobDirectory, client: AliceTraINTClient, state: State) -> State:
    refused = refusals(job)[0]
    what = f"the server refuses the result {refused.get('name')}: {refused.get('why')}"
    reason = Reason(ServerRefused.code, what, "the other results are on the server")
    withdraw_status(job.path)
    write_failure_log(job, reason, state, client.address.secret)
    return report_end(job, client, job.save(state.but(outcome="failed", reason=reason.plain())))
