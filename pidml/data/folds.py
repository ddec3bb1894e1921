"""Folds: parts of the training and validation samples that a training leaves out, to be judged on them.

Both samples lie in random order (sorted by the upper half of each track's hash, see :mod:`pidml.data.shuffle`), so that
a range of rows is a random part, and the same one whenever the data are prepared with the same seed. Fold k of K is the
k-th of K equal ranges of either sample. Nothing is copied: the samples without it are read from the same memory maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from pidml.data.prepared import Array, PreparedDataset, Split, rows_of
from pidml.errors import NoTracks

#: Name of the sample that :class:`FoldedDataset` has besides the usual three.
HELD_OUT = "held-out"
_DIVIDED = ("train", "validation")


@dataclass(frozen=True)
class Fold:
    """Fold ``number``, from 1, of ``of``."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"fold {self.number} of {self.of}"

    def rows(self, size: int) -> slice:
        """Return the fold's rows of a sample of ``size`` tracks; the sizes of folds differ by one at most."""
        return slice((self.number - 1) * size // self.of, self.number * size // self.of)

    def others(self, size: int) -> tuple[slice, slice]:
        """Return the rows of all other folds: those before and those after it."""
        own = self.rows(size)
        return slice(0, own.start), slice(own.stop, size)


class Ranges:
    """Ranges of rows of arrays, one after the other; looks like one array and is read where it is asked for.

    Args:
        parts: arrays of the same width and type, with the rows that are taken of each.
    """

    def __init__(self, parts: Sequence[tuple[NDArray[Any], slice]]) -> None:
        self._parts = [(array, rows.start, rows.stop) for array, rows in parts]
        self._ends = np.cumsum([stop - start for _, start, stop in self._parts])
        first = parts[0][0]
        self.dtype, self.shape = first.dtype, (int(self._ends[-1]), *first.shape[1:])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __getitem__(self, rows: Any) -> Any:
        """Return rows, by a slice without step or by their numbers; with ``[:, column]`` one column, not yet read."""
        if isinstance(rows, tuple):
            column = rows[1]
            return Ranges([(array[:, column], slice(start, stop)) for array, start, stop in self._parts])
        if isinstance(rows, slice):
            return self._range(*rows.indices(len(self))[:2])
        return self._picked(np.asarray(rows))

    def _range(self, start: int, stop: int) -> NDArray[Any]:
        pieces = []
        for (array, first, last), end in zip(self._parts, self._ends.tolist(), strict=True):
            shift = last - end  # from a row here to one of that array
            low, high = max(first, start + shift), min(last, stop + shift)
            if low < high:
                pieces.append(rows_of(array, slice(low, high)))
        return np.concatenate(pieces) if pieces else np.empty((0, *self.shape[1:]), self.dtype)

    def _picked(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        result = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        which = np.searchsorted(self._ends, numbers, side="right")
        for index, (array, _, last) in enumerate(self._parts):
            own = which == index
            result[own] = array[numbers[own] + (last - self._ends[index])]
        return result


@dataclass(frozen=True)
class FoldedDataset(PreparedDataset):
    """A prepared dataset whose training and validation samples lack a fold.

    What is left out is the sample ``held-out``; the test sample and the scaling are those of the whole dataset.
    """

    labelled: ClassVar[tuple[str, ...]] = (*PreparedDataset.labelled, HELD_OUT)

    fold: Fold

    @classmethod
    def without(cls, prepared: PreparedDataset, fold: Fold) -> Self:
        """Leave a fold out of a dataset.

        Raises:
            NoTracks: there are more folds than tracks.
        """
        for name in _DIVIDED:
            if (size := len(prepared.split(name))) < fold.of:
                raise NoTracks(
                    f"{prepared.path}: {size} tracks of the {name} sample cannot be divided into {fold.of} folds",
                    "lower replicas.folds, give more tracks or loosen the cuts",
                )
        return cls(prepared.path, prepared.meta | {"fold": [fold.number, fold.of]}, fold)

    def split(self, name: str) -> Split:
        """Return a sample: train and validation without the fold, held-out (of both, in this order), or test."""
        if name == HELD_OUT:
            return self._joined(
                name, [(each, self.fold.rows(len(each))) for each in map(super().split, _DIVIDED)], str(self.fold)
            )
        whole = super().split(name)
        if name not in _DIVIDED:
            return whole
        return self._joined(name, [(whole, rows) for rows in self.fold.others(len(whole))], f"without {self.fold}")

    def _joined(self, name: str, parts: Sequence[tuple[Split, slice]], note: str) -> Split:
        features, pdg, aux = (
            cast("Array", Ranges([(getattr(split, array), rows) for split, rows in parts]))
            for array in ("features", "pdg", "aux")
        )
        return Split(name, features, cast("NDArray[np.int32]", pdg), aux, parts[0][0].aux_names, note)
