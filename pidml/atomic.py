"""Atomic writes: what exists under its final name is complete, there is no other state.

A file or directory is written under a temporary sibling name (same parent, hence the same file system; same extension,
so that writers which look at it behave), flushed to the disk, and renamed. A process killed at any instant leaves at
most a temporary sibling, which :func:`is_temporary` recognises and which never counts as an output.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pidml.errors import DiskFull, StoreError

_MARK = ".tmp-"


def temporary_sibling(path: Path) -> Path:
    """Return a fresh name beside ``path``, hidden and with the same extension: ``.a.tmp-1f2e3d4c.onnx``."""
    return path.with_name(f".{path.stem}{_MARK}{uuid.uuid4().hex[:12]}{path.suffix}")


def is_temporary(path: Path) -> bool:
    """Tell whether ``path`` is the temporary sibling of an unfinished write."""
    return path.name.startswith(".") and _MARK in path.name


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below ``path`` into :class:`StoreError` or :class:`DiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no space left while writing {path}",
                "free some space (`pidml gc` shows what no kept job needs) or set PIDML_STORE elsewhere, then rerun",
            ) from error
        refused = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
        if error.errno in refused and _concerns(error, path):
            raise StoreError(
                f"cannot write {path}: {error.strerror}", "check who owns the store and its mount"
            ) from error
        raise


def _concerns(error: OSError, path: Path) -> bool:
    """Tell whether an error is about ``path`` or its surroundings, not about something read meanwhile."""
    if error.filename is None:
        return True
    about = Path(os.fsdecode(error.filename)).absolute()
    return about.is_relative_to(path.absolute().parent) or path.absolute().is_relative_to(about)


def fsync_path(path: Path) -> None:
    """Flush a file or directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it becomes ``path``, on any error nothing stays.

    Raises:
        DiskFull: the file system or quota is full.
        StoreError: the place is not writable.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(path)
        try:
            yield temporary
            fsync_path(temporary)
            temporary.replace(path)
            fsync_path(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield a temporary directory to fill; on success it becomes ``path``, on any error nothing stays.

    If another process published ``path`` meanwhile, its directory stays: both were made from the same settings.

    Raises:
        DiskFull: the file system or quota is full.
        StoreError: the place is not writable.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(path)
        temporary.mkdir()
        try:
            yield temporary
            for folder, _, files in os.walk(temporary):
                for name in files:
                    fsync_path(Path(folder, name))
                fsync_path(Path(folder))
            _rename_directory(temporary, path)
            fsync_path(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _rename_directory(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


@contextmanager
def exclusive(path: Path | str) -> Iterator[None]:
    """Hold ``path`` (a file or directory to be written) for this process; wait while another process holds it.

    Temporary siblings that killed writers of the same path left behind are removed once it is held.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for stale in path.parent.glob(f".{glob.escape(path.stem)}{_MARK}*{glob.escape(path.suffix)}"):
                if stale.is_dir():
                    shutil.rmtree(stale, ignore_errors=True)
                else:
                    stale.unlink(missing_ok=True)
            yield


def is_held(path: Path | str) -> bool:
    """Tell whether a process holds ``path`` by :func:`exclusive`."""
    path = Path(path)
    try:
        with path.with_name(f".{path.name}.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically and durably."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON (sorted keys, no NaN) to ``path`` atomically and durably."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")
