"""Files and statuses on their way to the server: each is sent once, in order, now or when the server is back.

Whatever is to be sent is first written into the job's ``pending/`` directory: from then on no crash loses it. It
leaves that directory only for a receipt (the server has it) or for ``refused/`` (the server will never take it).
Jobs and the poller use the same functions; a lock per job keeps them from sending one thing twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pidml.alicetraint.client import MAX_UPLOAD_BYTES, AliceTraINTClient, check_name, idempotency_key
from pidml.alicetraint.jobs import JobDirectory, bind_server, read_json, remove_temporaries, write_bytes
from pidml.alicetraint.receipts import STATUS_RANK, Receipt, Upload, refusals, reported_status
from pidml.atomic import explained, fsync_path, write_json
from pidml.errors import KeyRefused, ServerError, ServerRefused, StoreError
from pidml.server.protocol import FileType, TaskStatus

logger = logging.getLogger(__name__)


@dataclass
class Flushed:
    """What came of an attempt to send a job's outbox."""

    sent: int = 0
    waiting: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)
    error: ServerError | None = None
    withheld: bool = False


def upload_files(job_dir: Path, client: AliceTraINTClient, files: Sequence[Upload]) -> list[Receipt]:
    """Upload files as results of a job's task; what has a receipt is not sent again.

    A server that cannot be reached does not fail the job: what could not be sent stays in the outbox
    (``Receipt.sent`` is false) and goes out before the job is reported as Completed.

    Args:
        job_dir: the job's directory (``<store>/jobs/<task id>``).
        client: speaks to the server.
        files: what to send, in this order.

    Returns:
        one receipt per file, in the same order.

    Raises:
        StoreError: a file cannot be read, is too large, or its name cannot be sent.
        ServerRefused: the server does not accept a file; the others were sent.
        ConfigError: the store belongs to another server.
    """
    job = JobDirectory(Path(job_dir))
    bind_server(job.path.parent.parent, client.address)
    with _locked(job):
        for file in files:
            check_name(file.name)
        keys = [_enqueue_upload(job, client, file) for file in files]
        flushed = _flush(job, client)
        if flushed.error is not None:
            logger.warning("task %d: %d items wait to be sent: %s", job.task_id, flushed.waiting, flushed.error)
        if refused := [item for item in refusals(job) if item.get("key") in keys]:
            raise ServerRefused(
                f"the server refuses {', '.join(item['name'] for item in refused)}: {refused[0]['why']}",
                "see the directory 'refused' of the job",
            )
        return [_receipt_or_waiting(job, key) for key in keys]


def report_status(job_dir: Path, client: AliceTraINTClient, status: TaskStatus) -> bool:
    """Report a task's status, after everything that waits in the outbox; never backwards, never twice.

    Args:
        job_dir: the job's directory.
        client: speaks to the server.
        status: Training, Benchmarking, Completed or Failed.

    Returns:
        whether the server knows the status (or a later one); if not, it waits in the outbox.

    Raises:
        ServerRefused: Completed was asked for, but the server refuses a result: the job has failed.
        ConfigError: the store belongs to another server.
    """
    job = JobDirectory(Path(job_dir))
    bind_server(job.path.parent.parent, client.address)
    with _locked(job):
        if status is TaskStatus.COMPLETED and (refused := _refused_results(job)):
            raise ServerRefused(
                f"task {job.task_id} cannot be Completed, the server refuses {refused[0]['name']}: {refused[0]['why']}",
                "see the directory 'refused' of the job",
            )
        _enqueue_status(job, status)
        flushed = _flush(job, client)
        if flushed.error is not None:
            logger.warning("task %d: status %s waits to be sent: %s", job.task_id, status.name, flushed.error)
        return _reached(job, sent_only=True) >= STATUS_RANK[status]


def flush(job_dir: Path, client: AliceTraINTClient) -> Flushed:
    """Send what waits in a job's outbox, in order, up to the first thing that cannot be sent now."""
    job = JobDirectory(Path(job_dir))
    with _locked(job):
        return _flush(job, client)


def withdraw_status(job_dir: Path) -> None:
    """Take a status Completed that was not sent out of the outbox: the job turned out to have failed."""
    job = JobDirectory(Path(job_dir))
    with _locked(job):
        for path in _pending(job):
            item = read_json(path) or {}
            if item.get("kind") == "status" and item.get("status") == TaskStatus.COMPLETED:
                path.unlink()


def waiting(job: JobDirectory) -> int:
    """Return how many things wait in a job's outbox."""
    return len(_pending(job))


@contextmanager
def _locked(job: JobDirectory) -> Iterator[None]:
    """Hold the job's outbox: the server sees one thing at a time, whoever sends it."""
    with explained(job.path), (job.path / "outbox.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("pending", "receipts", "refused"):
            (job.path / name).mkdir(exist_ok=True)
        yield


def _pending(job: JobDirectory) -> list[Path]:
    return sorted(path for path in (job.path / "pending").glob("*.json") if path.stem.isdigit())


def _next_place(job: JobDirectory) -> Path:
    places = [int(path.stem) for path in _pending(job)]
    return job.path / "pending" / f"{max(places, default=0) + 1:08d}.json"


def _enqueue_upload(job: JobDirectory, client: AliceTraINTClient, file: Upload) -> str:
    try:
        content = Path(file.path).read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {file.path} to upload it: {error.strerror}", "run the step again") from error
    # The last of several nets: nothing that holds the machine's key leaves the machine.
    content = client.address.secret.mask_bytes(content)
    key = idempotency_key(job.task_id, file.name, content)
    if (job.path / "receipts" / f"{key}.json").exists() or (job.path / "refused" / f"{key}.json").exists():
        return key
    if any((read_json(path) or {}).get("key") == key for path in _pending(job)):
        return key
    if len(content) > MAX_UPLOAD_BYTES:
        raise StoreError(f"{file.path} has {len(content)} bytes, more than {MAX_UPLOAD_BYTES}", "send less of it")
    place = _next_place(job)
    write_bytes(place.with_suffix(".bin"), content)
    item = {
        "kind": "upload",
        "key": key,
        "name": file.name,
        "description": client.address.secret.mask(file.description),
        "file_type": int(file.file_type),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "queued": time.time(),
        "possible_duplicates": 0,
    }
    write_json(place, item)
    return key


def _enqueue_status(job: JobDirectory, status: TaskStatus) -> None:
    if _reached(job) >= STATUS_RANK[status]:
        return
    write_json(_next_place(job), {"kind": "status", "status": int(status), "name": status.name, "queued": time.time()})


def _reached(job: JobDirectory, sent_only: bool = False) -> int:
    known = reported_status(job)
    ranks = [0 if known is None else STATUS_RANK[known]]
    if not sent_only:
        items = (read_json(path) or {} for path in _pending(job))
        ranks += [STATUS_RANK[TaskStatus(item["status"])] for item in items if item.get("kind") == "status"]
    return max(ranks)


def _flush(job: JobDirectory, client: AliceTraINTClient) -> Flushed:
    result = Flushed()
    _sweep(job)
    for path in _pending(job):
        item = read_json(path)
        if item is None:
            continue
        if item.get("status") == TaskStatus.COMPLETED and _refused_results(job):
            result.withheld = True
            break
        try:
            _send(job, client, path, item)
            result.sent += 1
        except KeyRefused as error:
            result.error = error
            break
        except ServerRefused as error:
            result.refused.append(_set_refused(job, path, item, error))
        except ServerError as error:
            result.error = error
            break
    result.waiting = waiting(job)
    return result


def _send(job: JobDirectory, client: AliceTraINTClient, path: Path, item: dict[str, Any]) -> None:
    receipts_dir = job.path / "receipts"
    if item["kind"] == "status":
        status = TaskStatus(item["status"])
        # After a power cut an entry that was sent can be back; sending it again could set the status backwards.
        if _reached(job, sent_only=True) < STATUS_RANK[status]:
            client.set_status(job.task_id, status)
            write_json(receipts_dir / f"status-{int(status)}.json", {**item, "time": time.time()})
        path.unlink()
        return

    def lost() -> None:
        item["possible_duplicates"] += 1
        write_json(path, item)
        logger.warning("task %d: %s may have been stored, no answer came", job.task_id, item["name"])

    target = receipts_dir / f"{item['key']}.json"
    if not target.exists():
        content = path.with_suffix(".bin").read_bytes()
        if item.get("sending"):  # an earlier process died between sending and the receipt
            lost()
        item["sending"] = True
        write_json(path, item)
        try:
            answer = client.upload_result(
                job.task_id,
                item["name"],
                content,
                item["description"],
                FileType(item["file_type"]),
                item["key"],
                lost,
            )
        except ServerError:
            item["sending"] = False  # what may have been stored all the same was counted by `lost`
            write_json(path, item)
            raise
        receipt = Receipt(
            item["key"],
            job.task_id,
            item["name"],
            item["file_type"],
            item["sha256"],
            item["size"],
            sent=True,
            answer=answer,
            time=time.time(),
            possible_duplicates=item["possible_duplicates"],
        )
        write_json(target, asdict(receipt))
    path.unlink()
    path.with_suffix(".bin").unlink(missing_ok=True)


def _set_refused(job: JobDirectory, path: Path, item: dict[str, Any], error: ServerRefused) -> dict[str, Any]:
    """Move a thing that the server refuses out of the way, where the poller and people see it."""
    logger.error("task %d: %s is refused: %s", job.task_id, item["name"], error)
    refused = {**item, "why": error.what, "time": time.time()}
    name = item.get("key", f"status-{item.get('status')}")
    write_json(job.path / "refused" / f"{name}.json", refused)
    path.unlink()
    path.with_suffix(".bin").unlink(missing_ok=True)
    fsync_path(path.parent)
    return refused


def _refused_results(job: JobDirectory) -> list[dict[str, Any]]:
    return [item for item in refusals(job) if item.get("kind") == "upload"]


def _receipt_or_waiting(job: JobDirectory, key: str) -> Receipt:
    value = read_json(job.path / "receipts" / f"{key}.json")
    if value is not None:
        return Receipt(**value)
    items = (read_json(path) or {} for path in _pending(job))
    item = next(item for item in items if item.get("key") == key)
    return Receipt(key, job.task_id, item["name"], item["file_type"], item["sha256"], item["size"])


def _sweep(job: JobDirectory) -> None:
    """Remove what a killed process left: unfinished writes, and contents whose entry was never or no longer there."""
    for name in ("pending", "receipts", "refused"):
        remove_temporaries(job.path / name)
    for content in (job.path / "pending").glob("*.bin"):
        if not content.with_suffix(".json").exists():
            content.unlink()
