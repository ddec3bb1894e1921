"""The server's SQLite database: schema, connections and transactions."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pidml.errors import StoreError

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE machines (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  key_hash TEXT NOT NULL,
  registered REAL NOT NULL,
  last_seen REAL
);
CREATE TABLE tasks (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  status INTEGER NOT NULL,
  machine_id INTEGER REFERENCES machines (id),
  document TEXT NOT NULL,
  queued REAL NOT NULL,
  changed REAL NOT NULL
);
CREATE INDEX tasks_by_status ON tasks (status, id);
CREATE TABLE status_changes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  task_id INTEGER NOT NULL REFERENCES tasks (id),
  status INTEGER NOT NULL,
  moment REAL NOT NULL,
  source TEXT NOT NULL
);
CREATE INDEX status_changes_by_task ON status_changes (task_id, id);
CREATE TABLE results (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  task_id INTEGER NOT NULL REFERENCES tasks (id),
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  type INTEGER NOT NULL,
  file_name TEXT NOT NULL,
  stored_name TEXT NOT NULL,
  size INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  media_type TEXT NOT NULL,
  idempotency_key TEXT,
  uploaded REAL NOT NULL
);
CREATE INDEX results_by_task ON results (task_id, id);
CREATE UNIQUE INDEX results_by_idempotency_key ON results (task_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE TABLE grid_checksums (
  path TEXT PRIMARY KEY,
  size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  sha256 TEXT NOT NULL
);
"""
# Times are seconds since the epoch, UTC.

# Which question brought which task; a table of its own, so that a database made before it was thought of gets it too.
_CLAIMS = """
CREATE TABLE IF NOT EXISTS claims (
  machine_id INTEGER NOT NULL REFERENCES machines (id),
  key TEXT NOT NULL,
  task_id INTEGER NOT NULL REFERENCES tasks (id),
  PRIMARY KEY (machine_id, key)
)
"""


class Database:
    """A pool of connections to one SQLite file in WAL mode; safe for threads, and for several processes at once.

    Every commit is flushed to the disk (``synchronous=FULL``): an assignment that a machine was told survives a power
    cut.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._closed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            # Two processes that create the file at once would meet SQLite's "database is locked" on the switch to WAL.
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._prepare()

    def _prepare(self) -> None:
        with self.read() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        with self.write() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise StoreError(
                    f"{self.path} has schema version {version}, this program knows {SCHEMA_VERSION}",
                    "use the version of pidml that wrote it, or another data directory",
                )
            connection.execute(_CLAIMS)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection for reading; each statement sees one consistent state."""
        with self._guard:
            if self._closed:
                raise StoreError(f"{self.path} is closed", "open the store again")
            idle = self._idle.pop() if self._idle else None
        connection = idle or self._connect()
        try:
            yield connection
        finally:
            with self._guard:
                kept = not self._closed
                if kept:
                    self._idle.append(connection)
            if not kept:
                connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside a transaction that owns the write lock; committed and flushed on success."""
        with self._writing, self.read() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close every connection; those in use are closed when their user is done."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
