"""Results: uploaded files on the disk under names the server makes, and what is known about them in the database."""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pidml.atomic import atomic_file, is_temporary
from pidml.server.database import Database
from pidml.server.protocol import FileType
from pidml.server.records import Result, result_of

OTHER_CONTENT = "application/octet-stream"
ORPHAN_SECONDS = 3600.0
_CHUNK = 1024 * 1024
_IMAGE_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


@dataclass(frozen=True)
class NewResult:
    """What a machine says about a file it uploads."""

    task_id: int
    name: str
    description: str
    type: FileType
    file_name: str
    idempotency_key: str | None = None


class KeyReused(Exception):
    """An idempotency key came again with another content."""


class ResultStore:
    """The part of the server's store that keeps results."""

    def __init__(self, database: Database, file_dir: Path) -> None:
        self.database = database
        self.file_dir = file_dir

    def add_result(self, new: NewResult, content: BinaryIO) -> tuple[Result, bool]:
        """Keep an uploaded file and return ``(result, created)``.

        The file is complete and flushed before the database knows it. With an idempotency key, the same key for the
        same task gives the result made first, and ``created`` is false.

        Raises:
            KeyReused: the key was used for this task with another content.
            DiskFull: the disk is full.
        """
        stored_name = uuid.uuid4().hex
        path = self.file_dir / stored_name[:2] / stored_name
        with atomic_file(path) as temporary:
            size, sha256, head = _copy(content, temporary)
        try:
            result, created = self._insert(new, stored_name, size, sha256, _media_type(head))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if not created:
            path.unlink(missing_ok=True)
            if result.sha256 != sha256:
                raise KeyReused(f"result {result.id} of this task has this key and another content")
        return result, created

    def _insert(self, new: NewResult, stored_name: str, size: int, sha256: str, media_type: str) -> tuple[Result, bool]:
        with self.database.write() as connection:
            cursor = connection.execute(
                "INSERT INTO results (task_id, name, description, type, file_name, stored_name, size, sha256,"
                " media_type, idempotency_key, uploaded) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (task_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING",
                (
                    *(new.task_id, new.name, new.description, int(new.type), new.file_name),
                    *(stored_name, size, sha256, media_type, new.idempotency_key, time.time()),
                ),
            )
            created = cursor.rowcount == 1
            if created:
                row = connection.execute("SELECT * FROM results WHERE id = ?", (cursor.lastrowid,)).fetchone()
            else:
                row = connection.execute(
                    "SELECT * FROM results WHERE task_id = ? AND idempotency_key = ?",
                    (new.task_id, new.idempotency_key),
                ).fetchone()
            return result_of(row), created

    def results(self, task_id: int) -> list[Result]:
        """Return a task's results, oldest first."""
        with self.database.read() as connection:
            rows = connection.execute("SELECT * FROM results WHERE task_id = ? ORDER BY id", (task_id,)).fetchall()
        return [result_of(row) for row in rows]

    def result(self, result_id: int) -> Result | None:
        """Return one result, or ``None``."""
        with self.database.read() as connection:
            row = connection.execute("SELECT * FROM results WHERE id = ?", (result_id,)).fetchone()
        return None if row is None else result_of(row)

    def result_path(self, result: Result) -> Path:
        """Return where a result's content lies."""
        return self.file_dir / result.stored_name[:2] / result.stored_name

    def remove_orphans(self, older_than: float = ORPHAN_SECONDS) -> int:
        """Remove files that no result names, left by a server that was killed; return how many.

        Args:
            older_than: seconds since the last change of a file; younger ones may belong to an upload that is going on.
        """
        with self.database.read() as connection:
            known = {row[0] for row in connection.execute("SELECT stored_name FROM results")}
        removed = 0
        for path in self.file_dir.glob("*/*"):
            if (is_temporary(path) or path.name not in known) and _age(path) > older_than:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _copy(content: BinaryIO, path: Path) -> tuple[int, str, bytes]:
    """Copy ``content`` to ``path``; return size in bytes, SHA-256 in hexadecimal, and the first bytes."""
    sha256, size, head = hashlib.sha256(), 0, b""
    with path.open("wb") as stream:
        while chunk := content.read(_CHUNK):
            head = head or chunk[:16]
            size += len(chunk)
            sha256.update(chunk)
            stream.write(chunk)
    return size, sha256.hexdigest(), head


def _media_type(head: bytes) -> str:
    """Return the image type that a browser may show, by the content's first bytes, never by its name."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((media for signature, media in _IMAGE_SIGNATURES if head.startswith(signature)), OTHER_CONTENT)
