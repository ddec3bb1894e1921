"""What the ways of transfer share: the request, the error that is worth another try, disk space, copying a stream."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pidml.errors import ChecksumMismatch, DiskFull
from pidml.fetch.options import FetchOptions
from pidml.fetch.partial import Partial
from pidml.fetch.sources import Source

CHUNK = 1 << 20
_SPACE_EVERY = 256 * CHUNK
Progress = Callable[[int, int | None], None]


class TransientError(Exception):
    """A failure that may go away: worth another try.

    Args:
        cause: what happened, without credentials.
        pause: how long the server asks to wait, in s, if it does.
    """

    def __init__(self, cause: str, pause: float | None = None) -> None:
        super().__init__(cause)
        self.pause = pause


@dataclass(frozen=True)
class Request:
    """One attempt to get one file from one source.

    Args:
        source: where from.
        partial: where to; held by this process.
        size: size that the job states, in B, if it does.
        checksums: checksums that the job states.
        options: time limits and the like.
        progress: called with the bytes that are there and the total, if known.
    """

    source: Source
    partial: Partial
    size: int | None
    checksums: tuple[str, ...]
    options: FetchOptions
    progress: Progress | None = None

    def deadline(self) -> float:
        """Return the monotonic time at which this attempt must be over, counted from now."""
        return time.monotonic() + self.options.attempt_timeout


@dataclass(frozen=True)
class Transfer:
    """A complete, not yet verified file.

    Args:
        path: where it lies, on the destination's file system.
        checksums: checksums that the source states, to be verified beside those of the job.
        resumed_from: bytes taken over from an earlier attempt.
    """

    path: Path
    checksums: tuple[str, ...] = ()
    resumed_from: int = 0


def require_space(place: Path, needed: int, reserve: int, shown: str) -> None:
    """Refuse a transfer that the disk cannot hold.

    Args:
        place: a folder on the disk.
        needed: bytes to be written.
        reserve: bytes that must stay free.
        shown: how the error calls the file.

    Raises:
        DiskFull: names what is needed and what is free.
    """
    free = shutil.disk_usage(place).free
    if needed + reserve > free:
        raise DiskFull(
            f"{shown} needs {needed:,} B and {reserve:,} B must stay free, but {place} has {free:,} B",
            "free some space (`pidml gc` lists what no kept job needs) or move the store with PIDML_STORE, then rerun",
        )


def require_stated_size(request: Request, total: int | None) -> None:
    """Refuse a source whose size is not the one that the job states, before anything is transferred.

    Raises:
        ChecksumMismatch: names both sizes.
    """
    if total is not None and request.size is not None and total != request.size:
        raise ChecksumMismatch(
            f"{request.source.shown} has {total} B, the catalogue says {request.size} B",
            "the copy is damaged or the catalogue is wrong: check the size, or name another copy",
        )


def save(request: Request, chunks: Iterable[bytes], stream: IO[bytes], offset: int, total: int | None) -> int:
    """Write chunks from ``offset`` on and return the size reached.

    Args:
        request: the attempt.
        chunks: the content from ``offset`` on.
        stream: the partial file, at ``offset``; closed at the end.
        offset: bytes that are already there.
        total: expected size of the whole, in B, if known.

    Raises:
        DiskFull: the disk fills up.
        TransientError: the time is over, or more comes than was announced.
    """
    deadline, done, checked = request.deadline(), offset, offset
    with stream:
        for chunk in chunks:
            stream.write(chunk)
            done += len(chunk)
            if total is not None and done > total:
                raise TransientError(f"more than the announced {total} B came")
            if done - checked >= _SPACE_EVERY:
                checked = done
                require_space(request.partial.path.parent, 0, request.options.reserve, request.source.shown)
            if time.monotonic() > deadline:
                raise TransientError(f"not done after {request.options.attempt_timeout:g} s ({done} B are there)")
            if request.progress is not None:
                request.progress(done, total)
    return done
