"""A reproducible split and shuffle of any number of rows in bounded memory.

Every row has a number (its position in the input) and, from it and the seed, a hash. Its lower half decides the sample;
its upper half is the row's place: a sample is simply sorted by it. So the result depends on the seed and the input
alone, not on chunk sizes, bucket sizes or threads. Rows are first scattered into buckets (ranges of the upper half),
then each bucket is sorted.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

_HALF = np.uint64(32)
_LOWER = np.uint64(0xFFFFFFFF)
#: Rows transposed at a time, so that they stay in the processor's cache.
_BLOCK = 4096


def row_hashes(seed: int, first: int, count: int) -> NDArray[np.uint64]:
    """Return a hash for each of the rows ``first … first + count − 1``, shape (count,).

    It is the output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), a bijection of 64-bit integers, on a
    counter whose start is the same function of the seed.
    """
    start = _mixed(np.array([seed + 1], np.uint64) * np.uint64(0x9E3779B97F4A7C15))[0]
    counter = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _mixed(counter + start)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def sample_of(hashes: NDArray[np.uint64], fractions: tuple[float, float]) -> NDArray[np.uint8]:
    """Return the sample of each row: 0 training, 1 validation, 2 test.

    Args:
        hashes: as :func:`row_hashes` gives them.
        fractions: of validation and test; the rest is training.
    """
    lower = (hashes & _LOWER).astype(np.uint32)
    validation, test = (round(fraction * 2**32) for fraction in fractions)
    is_test = lower < test
    return 2 * is_test.astype(np.uint8) + (~is_test & (lower < test + validation))


def place_of(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the place of each row: its sample is sorted by it."""
    return (hashes >> _HALF).astype(np.uint32)


class _Part(NamedTuple):
    """Rows of one call of :meth:`Spool.add`, sorted by cell: in memory, or in the file from row ``start`` on."""

    bounds: NDArray[np.int64]  # first row of every cell, and the end
    rows: Rows | None
    start: int


class Spool:
    """Rows scattered into cells (buckets of samples), in memory up to a limit, beyond it on disk.

    Args:
        folder: where the spool file lies (without a name: it is gone when closed, whatever happens).
        width: float32 words per row, the place included as last word.
        samples: number of samples.
        buckets: number of buckets per sample.
        memory: bytes of rows that are kept in memory.
    """

    def __init__(self, folder: Path, width: int, samples: int, buckets: int, memory: int) -> None:
        self.width, self.samples, self.buckets = width, samples, buckets
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".spool-")  # noqa: SIM115 closed by __exit__
        self._parts: list[_Part] = []
        self._memory_left, self._rows_in_file = memory, 0
        self._buffers = [np.empty((0, width), np.float32)] * 2  # kept from call to call: fresh memory costs time

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, columns: list[NDArray[np.float32]], sample: NDArray[np.uint8], place: NDArray[np.uint32]) -> None:
        """Append rows, given as ``width − 1`` columns of 32-bit words, with their samples and places."""
        size = len(place)
        if len(self._buffers[0]) < size:
            self._buffers = [np.empty((size, self.width), np.float32) for _ in range(2)]
        rows, words = self._buffers[0][:size], [*columns, place.view(np.float32)]
        for start in range(0, size, _BLOCK):
            block = slice(start, start + _BLOCK)
            for index, column in enumerate(words):
                rows[block, index] = column[block]
        bucket = (place.astype(np.uint64) * np.uint64(self.buckets)) >> _HALF
        cell = sample.astype(np.uint16) * np.uint16(self.buckets) + bucket.astype(np.uint16)
        order = np.argsort(cell, kind="stable")  # radix sort for 16-bit integers
        keep = rows.nbytes <= self._memory_left
        ordered = np.empty_like(rows) if keep else self._buffers[1][:size]
        np.take(rows, order, axis=0, out=ordered, mode="clip")
        counts = np.bincount(cell, minlength=self.samples * self.buckets)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        self._parts.append(_Part(bounds, ordered if keep else None, self._rows_in_file))
        if keep:
            self._memory_left -= ordered.nbytes
        else:
            write_at(self._file.fileno(), ordered, self._rows_in_file * 4 * self.width)
            self._rows_in_file += size

    def sizes(self) -> NDArray[np.int64]:
        """Return the number of rows per sample and bucket, shape (samples, buckets)."""
        total = np.zeros(self.samples * self.buckets, np.int64)
        for part in self._parts:
            total += np.diff(part.bounds)
        return total.reshape(self.samples, self.buckets)

    def sorted_bucket(self, sample: int, bucket: int) -> Rows:
        """Return the rows of one bucket in their final order, shape (rows, width)."""
        rows = self._gathered(sample * self.buckets + bucket)
        # Place and position in one integer: sorting these is several times faster than a stable argsort of places.
        keys = rows.view(np.uint32)[:, -1].astype(np.uint64) << _HALF
        keys |= np.arange(len(rows), dtype=np.uint64)
        keys.sort()
        result = np.empty_like(rows)
        np.take(rows, (keys & _LOWER).astype(np.intp), axis=0, out=result, mode="clip")
        return result

    def _gathered(self, cell: int) -> Rows:
        """Return the rows of one cell in the order in which they were added."""
        extents = [(part, int(part.bounds[cell]), int(part.bounds[cell + 1])) for part in self._parts]
        rows = np.empty((sum(stop - first for _, first, stop in extents), self.width), np.float32)
        filled = 0
        for part, first, stop in extents:
            target = rows[filled : filled + stop - first]
            if part.rows is not None:
                target[:] = part.rows[first:stop]
            else:
                _read_at(self._file.fileno(), target, (part.start + first) * 4 * self.width)
            filled += stop - first
        return rows


def write_at(descriptor: int, array: NDArray[Any], offset: int) -> int:
    """Write a C-contiguous array at an offset of a file, completely, and return the number of bytes."""
    data = _bytes(array)
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)
    return written


def _bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a C-contiguous array as bytes."""
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _read_at(descriptor: int, rows: Rows, offset: int) -> None:
    data, filled = _bytes(rows), 0
    while filled < len(data):
        count = os.preadv(descriptor, [data[filled:]], offset + filled)
        if count == 0:
            raise OSError(f"the spool file ends {len(data) - filled} bytes early")
        filled += count
