"""One poller per store."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pidml.alicetraint.jobs import jobs_dir
from pidml.atomic import explained
from pidml.errors import ConfigError


@contextmanager
def only_poller(store: Path) -> Iterator[None]:
    """Hold the store's poller lock; the kernel releases it however this process ends.

    Raises:
        ConfigError: another poller holds it.
        StoreError: the store is not writable.
    """
    folder = jobs_dir(store)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "poller.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _lock(descriptor):
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"another poller (process {holder}) works on {store}",
                "stop it first, or set PIDML_STORE to another place",
            )
        with suppress(OSError):  # who holds the lock is a courtesy to the reader; a full disk may deny it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    # `pidml status` holds the lock for microseconds to see whether it is free; a poller holds it for days.
    for _ in range(20):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def poller_running(store: Path) -> bool:
    """Tell whether a poller works on ``store`` now."""
    try:
        descriptor = os.open(jobs_dir(store) / "poller.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
