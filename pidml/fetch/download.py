"""Fetching one input file: source after source, round after round, until a verified file is in its place."""

from __future__ import annotations

import importlib
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

from pidml.errors import ChecksumMismatch, ConfigError, DownloadError, InputMissing, PidmlError, ToolMissing
from pidml.fetch import checksum
from pidml.fetch.options import FetchOptions
from pidml.fetch.partial import Partial, hold
from pidml.fetch.receipt import FetchReceipt
from pidml.fetch.redaction import redacted, redacted_text
from pidml.fetch.sources import Source, sources
from pidml.fetch.transfer import Progress, Request, Transfer, TransientError
from pidml.spec.data_sections import InputFile

_log = logging.getLogger(__name__)
#: Method of a source → module with its ``transfer(request)``; imported on use, they need requests or fsspec.
_METHODS = {
    "file": "pidml.fetch.local",
    "http": "pidml.fetch.http",
    "fsspec": "pidml.fetch.remote",
    "alien_cp": "pidml.fetch.alien",
    "sandbox": "pidml.fetch.simulated",
}
_MISMATCHES_ALLOWED = 2


def fetch(
    file: InputFile, destination: Path | str, options: FetchOptions, progress: Progress | None = None
) -> FetchReceipt:
    """Make ``destination`` the file that a job names, verified, and return where it came from.

    The file appears under its name when it is complete and has the stated size and checksum. Until then it grows under
    a hidden name beside it (see :mod:`pidml.fetch.partial`), which a later call goes on with, also after a kill: give
    a ``destination`` in a folder that stays. Two processes may ask for the same destination; the second finds it made.

    Args:
        file: path, and size and checksum if the catalogue states them.
        destination: final path.
        options: sources, time limits, attempts.
        progress: called with the bytes that are there and the total (``None`` if unknown), in B.

    Raises:
        PathRefused: the path is malformed or leads where it may not.
        InputMissing: no source has the file.
        ChecksumMismatch: size or checksum differ, also after starting again and elsewhere.
        DownloadError: it cannot be had; names the attempts and the last cause.
        DiskFull: the disk cannot hold it.
        StoreError: the destination is not writable.
        ToolMissing: a program or package for this kind of address is not installed.
        SpecError: the stated checksum is malformed.
    """
    destination, start = Path(destination).absolute(), time.monotonic()
    checksums = (file.checksum,) if file.checksum else ()
    for each in checksums:
        checksum.split(each)
    candidates = sources(file.path, options)
    with hold(destination) as partial:
        if (receipt := _existing(file, destination, checksums, start)) is not None:
            return receipt
        rounds = _Rounds(file, partial, checksums, options, progress)
        source, transfer, agreed = rounds.run(candidates)
    return FetchReceipt(
        path=redacted(file.path),
        source=source.shown,
        method=source.method,
        size=destination.stat().st_size,
        size_verified=file.size is not None,
        checksums=agreed,
        attempts=rounds.attempts,
        resumed_from=transfer.resumed_from,
        seconds=time.monotonic() - start,
    )


def _existing(file: InputFile, destination: Path, checksums: tuple[str, ...], start: float) -> FetchReceipt | None:
    """Return the receipt of a file that is already there, if it is the right one."""
    if not destination.is_file():
        return None
    try:
        agreed = checksum.verify(destination, file.size, checksums, str(destination))
    except ChecksumMismatch as error:
        _log.warning("%s; fetching it again", error.what)
        return None
    return FetchReceipt(
        path=redacted(file.path),
        source=str(destination),
        method="already there",
        size=destination.stat().st_size,
        size_verified=file.size is not None,
        checksums=agreed,
        attempts=0,
        resumed_from=0,
        seconds=time.monotonic() - start,
    )


class _Rounds:
    """Attempts on all sources in turn; a source that refuses for good is left out of later rounds."""

    def __init__(
        self,
        file: InputFile,
        partial: Partial,
        checksums: tuple[str, ...],
        options: FetchOptions,
        progress: Progress | None,
    ) -> None:
        self.file, self.partial, self.checksums = file, partial, checksums
        self.options, self.progress = options, progress
        self.attempts = 0
        self.failures: list[PidmlError | TransientError] = []
        self.mismatches: dict[Source, int] = {}

    def run(self, candidates: list[Source]) -> tuple[Source, Transfer, tuple[str, ...]]:
        """Return the source that gave the file, what it gave, and the checksums that agreed."""
        left = list(candidates)
        for number in range(self.options.attempts):
            pause = 0.0
            for source in list(left):
                try:
                    return (source, *self._attempt(source))
                except TransientError as error:
                    pause = max(pause, error.pause or 0.0)
                    self._note(source, error)
                except ChecksumMismatch as error:
                    self.mismatches[source] = self.mismatches.get(source, 0) + 1
                    if self.mismatches[source] >= _MISMATCHES_ALLOWED:
                        left.remove(source)
                    self._note(source, error)
                except (DownloadError, ConfigError) as error:
                    left.remove(source)
                    self._note(source, error)
            if not left:
                break
            if number + 1 < self.options.attempts:
                self._wait(number, pause)
        raise self._final(candidates)

    def _attempt(self, source: Source) -> tuple[Transfer, tuple[str, ...]]:
        self.attempts += 1
        run: Callable[[Request], Transfer] = importlib.import_module(_METHODS[source.method]).transfer
        transfer = run(
            Request(source, self.partial, self.file.size, self.checksums, self.options, self.progress),
        )
        published = False
        try:
            stated = self.checksums + transfer.checksums
            agreed = checksum.verify(transfer.path, self.file.size, stated, source.shown)
            self.partial.publish(transfer.path)
            published = True
            return transfer, agreed
        except ChecksumMismatch:
            self.partial.discard()
            raise
        finally:
            if not published and transfer.path != self.partial.path:
                transfer.path.unlink(missing_ok=True)

    def _note(self, source: Source, error: PidmlError | TransientError) -> None:
        self.failures.append(error)
        cause = error.what if isinstance(error, PidmlError) else redacted_text(str(error))
        _log.warning("attempt %d on %s failed: %s", self.attempts, source.shown, cause)

    def _wait(self, number: int, pause: float) -> None:
        """Wait between rounds: exponential with jitter, so that many machines do not come back at once."""
        mean = self.options.backoff * 2.0**number
        time.sleep(min(self.options.max_backoff, max(pause, mean * random.uniform(0.5, 1.5))))

    def _final(self, candidates: list[Source]) -> PidmlError:
        """Return the error to raise: the failure itself if there was one kind from one source, a summary otherwise."""
        last = self.failures[-1]
        kinds = {type(failure) for failure in self.failures}
        if isinstance(last, PidmlError) and kinds == {type(last)} and len(candidates) == 1:
            return last
        cause = last.what if isinstance(last, PidmlError) else redacted_text(str(last))
        where = ", ".join(source.shown for source in candidates)
        kind = next((kind for kind in (InputMissing, ChecksumMismatch, ToolMissing) if kinds == {kind}), DownloadError)
        return kind(
            f"{redacted(self.file.path)} could not be fetched in {self.attempts} attempts from {where}; "
            f"the last failure: {cause}",
            "check the server and the network, then rerun: the download goes on where it broke off",
        )
