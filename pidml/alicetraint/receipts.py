"""Receipts: what the server has, and what it refused, one small file each.

``receipts/<key>.json`` says that the server has a file; the key is the SHA-256 over task, name and content, so that the
same file is never sent twice and a changed one is. ``receipts/status-<number>.json`` says that it knows a status.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidml.alicetraint.jobs import JobDirectory, read_json
from pidml.server.protocol import FileType, TaskStatus

#: How far a job has come; Completed and Failed are both ends, neither follows the other.
STATUS_RANK = {TaskStatus.TRAINING: 1, TaskStatus.BENCHMARKING: 2, TaskStatus.COMPLETED: 3, TaskStatus.FAILED: 3}


@dataclass(frozen=True)
class Upload:
    """A file to upload.

    Attributes:
        path: where it is.
        name: name on the server, unique within the task (the server keeps base names only).
        file_type: log, image or network.
        description: one line for people.
    """

    path: Path
    name: str
    file_type: FileType
    description: str = ""


@dataclass(frozen=True)
class Receipt:
    """What is known about a file handed over for sending.

    Attributes:
        key: idempotency key, the SHA-256 over task, name and content; also the receipt's file name.
        task: number of the task.
        name: name on the server.
        file_type: log, image or network.
        sha256: of the content.
        size: in bytes.
        sent: whether the server has it; else it waits in the outbox.
        answer: the server's answer.
        time: when the answer came, seconds since the epoch.
        possible_duplicates: tries whose answer was lost: the most copies a server has that ignores the key.
    """

    key: str
    task: int
    name: str
    file_type: int
    sha256: str
    size: int
    sent: bool = False
    answer: Any = None
    time: float = 0.0
    possible_duplicates: int = 0


def receipts(job: JobDirectory) -> list[Receipt]:
    """Return the receipts of a job's uploads, oldest first."""
    found = [read_json(path) for path in (job.path / "receipts").glob("[0-9a-f]*.json") if len(path.stem) == 64]
    return sorted((Receipt(**value) for value in found if value), key=lambda receipt: receipt.time)


def reported_status(job: JobDirectory) -> TaskStatus | None:
    """Return the last status that the server acknowledged, or ``None``."""
    known = [int(path.stem.removeprefix("status-")) for path in (job.path / "receipts").glob("status-*.json")]
    return max((TaskStatus(number) for number in known), key=lambda status: STATUS_RANK[status], default=None)


def refusals(job: JobDirectory) -> list[dict[str, Any]]:
    """Return what the server refused: ``{"kind", "name", "why", …}`` each."""
    return [value for path in sorted((job.path / "refused").glob("*.json")) if (value := read_json(path))]
