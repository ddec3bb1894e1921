"""Unfinished downloads: a hidden sibling of the destination that survives a kill, and a note of what it is a part of.

For ``AO2D.root`` the partial file is ``.AO2D.tmp-partial.root`` and its note ``.AO2D.root.tmp-note.json``; both count
as temporary (:func:`pidml.atomic.is_temporary`). The partial file is locked while a process works on it. A kill leaves
the file as the kernel has it, a power cut may not: what was written before the last boot is taken over only if a
checksum will be compared at the end.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pidml.atomic import explained, fsync_path, write_json
from pidml.identity import digest

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Note:
    """What a partial file is a part of.

    Args:
        source: digest of the full address; the address itself may hold credentials.
        validator: the server's mark of this version of the content (strong ETag, date, checksum); ``""`` if none.
        total: size of the whole in bytes, if known.
        boot: the boot of the machine during which it was written.
    """

    source: str
    validator: str
    total: int | None
    boot: str


def boot_id() -> str:
    """Return the identity of this boot of this machine; ``""`` where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Partial:
    """The partial file of a destination, held by this process; see :func:`hold`."""

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination.with_name(f".{destination.stem}.tmp-partial{destination.suffix}")
        self.note_path = destination.with_name(f".{destination.name}.tmp-note.json")

    def resumable(self, address: str, checksum_known: bool) -> tuple[int, str]:
        """Return from which byte a download from ``address`` may go on, and the validator to send with the request.

        Args:
            address: full address of the source.
            checksum_known: whether a checksum will be compared at the end.

        Returns:
            ``(0, "")`` if what is there (if anything) must not be used.
        """
        note, size = self._note(), self.path.stat().st_size
        if note is None or note.source != digest(address) or (note.total is not None and size > note.total):
            return 0, ""
        whole = bool(note.boot) and note.boot == boot_id()
        if checksum_known or (whole and note.validator):
            # A part that is already whole gives one byte back, so that there is something to ask the server for.
            return (size - 1 if size == note.total and size > 0 else size), note.validator
        return 0, ""

    def _note(self) -> Note | None:
        try:
            value = json.loads(self.note_path.read_text(encoding="utf-8"))
            return Note(str(value["source"]), str(value["validator"]), value["total"], str(value["boot"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, address: str, validator: str, total: int | None, offset: int) -> IO[bytes]:
        """Open the partial file for writing at ``offset``, dropping what follows, after noting what it is a part of."""
        self.note_path.unlink(missing_ok=True)  # at no instant does a note stand beside content of something else
        os.truncate(self.path, offset)
        write_json(self.note_path, asdict(Note(digest(address), validator, total, boot_id())))
        stream = self.path.open("r+b")
        stream.seek(offset)
        return stream

    def discard(self) -> None:
        """Drop the content; the file itself stays, empty and locked."""
        self.note_path.unlink(missing_ok=True)
        os.truncate(self.path, 0)

    def publish(self, complete: Path) -> None:
        """Rename a complete, verified file to the destination, durably."""
        fsync_path(complete)
        complete.replace(self.destination)
        complete.unlink(missing_ok=True)  # renaming one hard link to another of the same file does nothing
        fsync_path(self.destination.parent)
        self.note_path.unlink(missing_ok=True)
        if complete != self.path:
            self.discard()


@contextmanager
def hold(destination: Path) -> Iterator[Partial]:
    """Yield the partial file of ``destination``, locked: another process that wants it waits until this one is done.

    Raises:
        DiskFull: the file system or quota is full.
        StoreError: the place is not writable.
    """
    with explained(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial = Partial(destination)
        descriptor = _locked(partial.path)
        try:
            yield partial
        finally:
            _remove_if_empty(partial.path, descriptor)
            os.close(descriptor)


def _locked(path: Path) -> int:
    """Return a descriptor of ``path``, locked; the file is there and is the one that the name leads to."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        _lock(descriptor, path)
        if _same(path, descriptor):
            return descriptor
        os.close(descriptor)  # whoever held the lock has renamed or removed the file: look again


def _lock(descriptor: int, path: Path) -> None:
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process is fetching into %s; waiting for it", path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        _log.warning("the file system of %s has no locks; two downloads of one file would disturb each other", path)


def _same(path: Path, descriptor: int) -> bool:
    try:
        named, held = path.lstat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def _remove_if_empty(path: Path, descriptor: int) -> None:
    if _same(path, descriptor) and os.fstat(descriptor).st_size == 0:
        path.unlink()
