"""The server's memory: machines, tasks and results, in one SQLite file and a directory of uploaded files."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pidml.errors import SpecError
from pidml.server.database import Database
from pidml.server.keys import KeyVerifier, new_key
from pidml.server.protocol import TaskStatus
from pidml.server.records import Machine, NewMachine, StatusChange, Task, task_of
from pidml.server.results import ResultStore

MAX_NAME_LENGTH = 255
MAX_DEPTH = 64

_TASKS = """
SELECT t.id, t.name, t.status, t.machine_id, m.name AS machine_name, t.document, t.queued, t.changed,
  (SELECT count(*) FROM results r WHERE r.task_id = t.id) AS result_count
FROM tasks t LEFT JOIN machines m ON m.id = t.machine_id
"""


class ServerStore(ResultStore):
    """Machines, tasks and results below one data directory.

    Any number of threads and processes may use one data directory at once, the running server among them.

    Args:
        data_dir: made if absent; holds ``server.sqlite`` and ``files/``.
    """

    def __init__(self, data_dir: Path | str) -> None:
        self.data_dir = Path(data_dir)
        super().__init__(Database(self.data_dir / "server.sqlite"), self.data_dir / "files")
        self._keys = KeyVerifier()

    def __enter__(self) -> ServerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    # Machines

    def register_machine(self, name: str) -> NewMachine:
        """Register a training machine and return ``(id, secret)``; the secret is kept as a hash only."""
        name = checked_name(name, "machine name")
        key = new_key()
        key_hash = self._keys.hash(key)
        with self.database.write() as connection:
            cursor = connection.execute(
                "INSERT INTO machines (name, key_hash, registered) VALUES (?, ?, ?)", (name, key_hash, time.time())
            )
        return NewMachine(int(cursor.lastrowid or 0), key)

    def machines(self) -> list[Machine]:
        """Return all machines, oldest first."""
        with self.database.read() as connection:
            rows = connection.execute("SELECT id, name, registered, last_seen FROM machines ORDER BY id").fetchall()
        return [Machine(**dict(row)) for row in rows]

    def machine_is(self, machine_id: int, secret: str) -> bool:
        """Tell whether ``secret`` is the key of machine ``machine_id``."""
        with self.database.read() as connection:
            row = connection.execute("SELECT key_hash FROM machines WHERE id = ?", (machine_id,)).fetchone()
        return row is not None and self._keys.verify(row["key_hash"], secret)

    def task_is_of(self, task_id: int, secret: str) -> bool:
        """Tell whether ``secret`` is the key of the machine that task ``task_id`` is assigned to."""
        with self.database.read() as connection:
            row = connection.execute(
                "SELECT m.key_hash FROM tasks t JOIN machines m ON m.id = t.machine_id WHERE t.id = ?", (task_id,)
            ).fetchone()
        return row is not None and self._keys.verify(row["key_hash"], secret)

    # Tasks

    def queue_task(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        configuration: Mapping[str, Any],
        *,
        is_one: bool | None = False,
        is_data: bool | None = False,
        subsample_event_count: int | None = 0,
        source: str = "program",
    ) -> int:
        """Queue a training task and return its id.

        Args:
            name: what people call it.
            files: the ``AODFiles`` objects, sent to the machine as they are (see :func:`pidml.server.aod.aod_file`).
            configuration: the ``Configuration`` object, sent as it is; whether it makes sense is the machine's to say.
            is_one: O–O / Ne–Ne variant of the producer; ``None`` leaves the field out, as older servers do.
            is_data: experimental data instead of simulation; ``None`` leaves the field out.
            subsample_event_count: events to keep, 0 for all; ``None`` leaves the field out.
            source: who queued it, for the task's history.

        Raises:
            SpecError: no name, no files, or something that cannot be written as JSON.
        """
        name = checked_name(name, "task name")
        if not files:
            raise SpecError(f"task {name!r} has no files", "give at least one AO2D file")
        newer = {"IsONe": is_one, "IsData": is_data, "SubsampleEventCount": subsample_event_count}
        document: dict[str, Any] = {"AODFiles": [dict(file) for file in files], "Configuration": dict(configuration)}
        document |= {key: value for key, value in newer.items() if value is not None}
        try:
            text = json.dumps(document, allow_nan=False, ensure_ascii=False)
            text.encode()  # fails for lone surrogates, which could be kept but never sent
        except (TypeError, ValueError, RecursionError) as error:
            raise SpecError(f"task {name!r} cannot be written as JSON: {error}", "use plain JSON values") from error
        if _depth(document) > MAX_DEPTH:
            raise SpecError(f"task {name!r} is nested deeper than {MAX_DEPTH} levels", "use a flatter configuration")
        return self._insert_task(name, text, source)

    def queue_copy(self, task_id: int, source: str = "program") -> int | None:
        """Queue a new task with the files and configuration of ``task_id``; ``None`` if there is no such task."""
        task = self.task(task_id)
        return None if task is None else self._insert_task(task.name, json.dumps(task.document), source)

    def _insert_task(self, name: str, document: str, source: str) -> int:
        now = time.time()
        with self.database.write() as connection:
            cursor = connection.execute(
                "INSERT INTO tasks (name, status, document, queued, changed) VALUES (?, ?, ?, ?, ?)",
                (name, int(TaskStatus.QUEUED), document, now, now),
            )
            task_id = int(cursor.lastrowid or 0)
            connection.execute(_RECORD, (task_id, int(TaskStatus.QUEUED), now, source))
        return task_id

    def assign_next(self, machine_id: int, claim_key: str | None = None) -> Task | None:
        """Assign the oldest queued task to a machine, set it to Training, and return it; ``None`` if none is queued.

        Choice, assignment and status are one transaction that owns the database's write lock, flushed to the disk
        before this returns: two machines never get the same task, and an answer given is never forgotten. A machine
        that did not get the answer asks again with the same ``claim_key`` and is given the same task.
        """
        now = time.time()
        with self.database.write() as connection:
            connection.execute("UPDATE machines SET last_seen = ? WHERE id = ?", (now, machine_id))
            row = connection.execute(
                "SELECT t.id FROM claims c JOIN tasks t ON t.id = c.task_id"
                " WHERE c.machine_id = ? AND c.key = ? AND t.machine_id = c.machine_id AND t.status != ?",
                (machine_id, claim_key, int(TaskStatus.QUEUED)),
            ).fetchone()
            if row is not None:
                return task_of(connection.execute(f"{_TASKS} WHERE t.id = ?", (row["id"],)).fetchone())
            row = connection.execute(
                "SELECT id FROM tasks WHERE status = ? ORDER BY id LIMIT 1", (int(TaskStatus.QUEUED),)
            ).fetchone()
            if row is None:
                return None
            if claim_key is not None:
                connection.execute("REPLACE INTO claims VALUES (?, ?, ?)", (machine_id, claim_key, row["id"]))
            connection.execute(
                "UPDATE tasks SET status = ?, machine_id = ?, changed = ? WHERE id = ?",
                (int(TaskStatus.TRAINING), machine_id, now, row["id"]),
            )
            connection.execute(_RECORD, (row["id"], int(TaskStatus.TRAINING), now, "server"))
            return task_of(connection.execute(f"{_TASKS} WHERE t.id = ?", (row["id"],)).fetchone())

    def set_status(
        self, task_id: int, status: TaskStatus, source: str = "program", only_from: TaskStatus | None = None
    ) -> bool:
        """Set a task's status and return whether that changed anything; the history keeps changes only.

        Args:
            task_id: the task.
            status: its new status.
            source: who sets it.
            only_from: change nothing unless this is the status now.
        """
        now = time.time()
        with self.database.write() as connection:
            row = connection.execute("SELECT status FROM tasks WHERE id = ?", (task_id,)).fetchone()
            if row is None or row["status"] == status or (only_from is not None and row["status"] != only_from):
                return False
            connection.execute("UPDATE tasks SET status = ?, changed = ? WHERE id = ?", (int(status), now, task_id))
            connection.execute(_RECORD, (task_id, int(status), now, source))
        return True

    def task(self, task_id: int) -> Task | None:
        """Return one task, or ``None``."""
        with self.database.read() as connection:
            row = connection.execute(f"{_TASKS} WHERE t.id = ?", (task_id,)).fetchone()
        return None if row is None else task_of(row)

    def tasks(self, limit: int = -1, offset: int = 0) -> list[Task]:
        """Return tasks, newest first; ``limit`` -1 means all."""
        with self.database.read() as connection:
            rows = connection.execute(f"{_TASKS} ORDER BY t.id DESC LIMIT ? OFFSET ?", (limit, offset)).fetchall()
        return [task_of(row) for row in rows]

    def task_counts(self) -> dict[TaskStatus, int]:
        """Return how many tasks have each status, all statuses included."""
        with self.database.read() as connection:
            rows = connection.execute("SELECT status, count(*) FROM tasks GROUP BY status").fetchall()
        return dict.fromkeys(TaskStatus, 0) | {TaskStatus(row[0]): row[1] for row in rows}

    def history(self, task_id: int) -> list[StatusChange]:
        """Return a task's status changes, oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(
                "SELECT status, moment, source FROM status_changes WHERE task_id = ? ORDER BY id", (task_id,)
            ).fetchall()
        return [StatusChange(TaskStatus(row["status"]), row["moment"], row["source"]) for row in rows]


_RECORD = "INSERT INTO status_changes (task_id, status, moment, source) VALUES (?, ?, ?, ?)"


def _depth(value: Any) -> int:
    """Return how many levels of objects and arrays ``value`` has."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list | tuple)]:
        depth += 1
        level = [item for group in level for item in (group.values() if isinstance(group, dict) else group)]
    return depth


def checked_name(text: str, what: str) -> str:
    """Return a name without surrounding blanks; raise :class:`SpecError` for one that does not fit one line."""
    name = text.strip()
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        shown = repr(text[:40])
        raise SpecError(
            f"{what} {shown} is empty, too long or not printable", f"give 1 to {MAX_NAME_LENGTH} characters"
        )
    return name
