"""A reproducible split and shuffle of any number of rows in bounded memory.

Every row has a number (its position in the input) and, from it and the seed, a hash. Its lower half decides the sample;
its upper half is the row's place: a sample is simply sorted by it. So the result depends on the seed and the input
alone, not on chunk sizes, bucket sizes or threads. Rows are first scattered into buckets (ranges of the upper half) in
a spool file without a name, then each bucket is sorted in memory.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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


class Spool:
    """Rows scattered into buckets of ``samples`` samples, on disk.

    Args:
        folder: where the spool file lies (without a name: it is gone when closed, whatever happens).
        width: float32 words per row, the place included as last word.
        samples: number of samples.
        buckets: number of buckets per sample.
    """

    def __init__(self, folder: Path, width: int, samples: int, buckets: int) -> None:
        self.width, self.samples, self.buckets = width, samples, buckets
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".spool-")  # noqa: SIM115 closed by __exit__
        self._end = 0
        self._buffers = [np.empty((0, width), np.float32)] * 2  # kept from call to call: fresh memory costs time
        self._bounds: list[NDArray[np.int64]] = []  # per call of add: first row of every cell, and the end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, columns: list[NDArray[np.float32]], sample: NDArray[np.uint8], place: NDArray[np.uint32]) -> None:
        """Append rows, given as ``width − 1`` columns of 32-bit words, with their samples and places."""
        if len(self._buffers[0]) < len(place):
            self._buffers = [np.empty((len(place), self.width), np.float32) for _ in range(2)]
        rows, sorted_rows = (buffer[: len(place)] for buffer in self._buffers)
        words = [*columns, place.view(np.float32)]
        for start in range(0, len(place), _BLOCK):
            block = slice(start, start + _BLOCK)
            for index, column in enumerate(words):
                rows[block, index] = column[block]
        bucket = (place.astype(np.uint64) * np.uint64(self.buckets)) >> _HALF
        cell = sample.astype(np.uint16) * np.uint16(self.buckets) + bucket.astype(np.uint16)
        order = np.argsort(cell, kind="stable")  # radix sort for 16-bit integers
        np.take(rows, order, axis=0, out=sorted_rows, mode="clip")
        write_at(self._file.fileno(), sorted_rows, self._end * 4 * self.width)
        sizes = np.bincount(cell, minlength=self.samples * self.buckets)
        self._bounds.append(self._end + np.concatenate([[0], np.cumsum(sizes)]))
        self._end += len(place)

    def sizes(self) -> NDArray[np.int64]:
        """Return the number of rows per sample and bucket, shape (samples, buckets)."""
        total = np.zeros(self.samples * self.buckets, np.int64)
        for bounds in self._bounds:
            total += np.diff(bounds)
        return total.reshape(self.samples, self.buckets)

    def sorted_bucket(self, sample: int, bucket: int) -> Rows:
        """Read one bucket and return its rows in their final order, shape (rows, width)."""
        cell = sample * self.buckets + bucket
        extents = [(int(bounds[cell]), int(bounds[cell + 1])) for bounds in self._bounds]
        size = sum(stop - start for start, stop in extents)
        rows, filled = np.empty((size, self.width), np.float32), 0
        for start, stop in extents:
            _read_at(self._file.fileno(), rows[filled : filled + stop - start], start * 4 * self.width)
            filled += stop - start
        # Place and position in one integer: sorting these is several times faster than a stable argsort of places.
        keys = rows.view(np.uint32)[:, -1].astype(np.uint64) << _HALF
        keys |= np.arange(size, dtype=np.uint64)
        keys.sort()
        result = np.empty_like(rows)
        np.take(rows, (keys & _LOWER).astype(np.intp), axis=0, out=result, mode="clip")
        return result


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
