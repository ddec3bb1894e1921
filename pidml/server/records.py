"""What the store hands out: machines, tasks, status changes and results, as plain immutable records."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, NamedTuple

from pidml.server.protocol import FileType, TaskStatus


class NewMachine(NamedTuple):
    """Identity and key of a machine just registered; the key is not kept and cannot be shown again."""

    id: int
    secret: str


@dataclass(frozen=True)
class Machine:
    """A registered training machine. Times are seconds since the epoch."""

    id: int
    name: str
    registered: float
    last_seen: float | None


@dataclass(frozen=True)
class StatusChange:
    """One entry of a task's history: who (``source``: page, machine, server, program) set which status when."""

    status: TaskStatus
    moment: float
    source: str


@dataclass(frozen=True)
class Task:
    """A training task.

    Attributes:
        document: what a machine is told, without ``ID``: ``AODFiles``, ``Configuration`` and the newer fields.
        machine_id: the machine it is assigned to, ``None`` before the assignment.
        queued: when it was queued, seconds since the epoch.
        changed: when its status last changed, seconds since the epoch.
        result_count: how many results have been uploaded.
    """

    id: int
    name: str
    status: TaskStatus
    machine_id: int | None
    machine_name: str | None
    document: dict[str, Any]
    queued: float
    changed: float
    result_count: int

    @property
    def files(self) -> list[dict[str, Any]]:
        """The AO2D files, as queued."""
        return list(self.document["AODFiles"])

    @property
    def configuration(self) -> dict[str, Any]:
        """The training configuration, as queued."""
        return dict(self.document["Configuration"])

    def as_protocol(self) -> dict[str, Any]:
        """Return the JSON object a machine gets."""
        return {"ID": self.id, **self.document}


@dataclass(frozen=True)
class Result:
    """One uploaded file.

    Attributes:
        file_name: base name that the machine gave.
        stored_name: name below the server's file directory, made by the server.
        size: bytes.
        media_type: image type recognised by content (``image/png``, …), else ``application/octet-stream``.
        uploaded: seconds since the epoch.
    """

    id: int
    task_id: int
    name: str
    description: str
    type: FileType
    file_name: str
    stored_name: str
    size: int
    sha256: str
    media_type: str
    idempotency_key: str | None
    uploaded: float

    @property
    def is_shown(self) -> bool:
        """Whether the page shows it inline: an image by type *and* by content."""
        return self.type is FileType.IMAGE and self.media_type.startswith("image/")

    def as_protocol(self) -> dict[str, Any]:
        """Return the JSON object a machine gets for an upload."""
        return {
            "ID": self.id,
            "TrainingTaskID": self.task_id,
            "Name": self.name,
            "Description": self.description,
            "Type": int(self.type),
            "FileName": self.file_name,
            "Size": self.size,
            "SHA256": self.sha256,
        }


def task_of(row: sqlite3.Row) -> Task:
    """Make a task of a database row."""
    fields = dict(row)
    return Task(**{**fields, "status": TaskStatus(row["status"]), "document": json.loads(row["document"])})


def result_of(row: sqlite3.Row) -> Result:
    """Make a result of a database row."""
    return Result(**{**dict(row), "type": FileType(row["type"])})
