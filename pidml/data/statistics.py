"""Means, standard deviations and counts, gathered piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml import species, tracks
from pidml.data.prepared import Scaling

#: Names of what a simulated track can be, and of tracks without label, in the order of :func:`count_tracks`.
KINDS: tuple[str, ...] = (*(particle.name for particle in species.ALL), "other")
#: Rows taken at a time, so that they stay in the processor's cache.
_BLOCK = 8192
UNLABELLED = "unlabelled"
_CODES = np.array(sorted(particle.pdg for particle in species.ALL), np.int32)
_KIND_OF_CODE = np.array([[s.pdg for s in species.ALL].index(code) for code in _CODES], np.int64)


@dataclass(frozen=True)
class Moments:
    """Number, mean and sum of squared deviations per column, NaN left out; float64, shape (columns,)."""

    number: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def zero(cls, columns: int) -> Moments:
        """Return the moments of no values."""
        return cls(np.zeros(columns), np.zeros(columns), np.zeros(columns))

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Moments:
        """Return the moments of a matrix of shape (rows, columns), computed in float64."""
        result = cls.zero(values.shape[1])
        for start in range(0, len(values), _BLOCK):
            result = result + cls._of_block(values[start : start + _BLOCK])
        return result

    @classmethod
    def _of_block(cls, values: NDArray[np.float32]) -> Moments:
        result = cls.zero(values.shape[1])
        for index in range(values.shape[1]):
            with np.errstate(invalid="ignore"):  # damaged files may hold signalling NaN
                column = values[:, index].astype(np.float64)
            total = column.sum()
            if np.isnan(total):
                column = column[~np.isnan(column)]
                total = column.sum()
            if len(column):
                result.number[index], result.mean[index] = len(column), total / len(column)
                column -= result.mean[index]
                result.squares[index] = np.dot(column, column)
        return result

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of values (Chan, Golub and LeVeque, 1979)."""
        number = self.number + other.number
        weight = other.number / np.maximum(number, 1)
        shift = other.mean - self.mean
        squares = self.squares + other.squares + shift**2 * self.number * weight
        return Moments(number, self.mean + shift * weight, squares)


def scaling_from(moments: Moments, names: Sequence[str], standardised: Sequence[str]) -> Scaling:
    """Return the scaling of features.

    A feature that is constant, or missing for every track, gets the standard deviation 1 (and, in the latter case, the
    mean 0): its scaled value is then 0 or NaN, and harmless.

    Args:
        moments: of the training sample, one column per standardised feature.
        names: all features, in order.
        standardised: those to be scaled; the others get mean 0 and standard deviation 1.
    """
    mean, std = np.zeros(len(names), np.float32), np.ones(len(names), np.float32)
    for column, name in enumerate(standardised):
        index, number = names.index(name), moments.number[column]
        if number == 0:
            continue
        mean[index] = moments.mean[column]
        width = np.float32(np.sqrt(moments.squares[column] / number))
        # Rounding leaves a constant column a width of the order of the precision of float32.
        if width > 1e-7 * abs(mean[index]):
            std[index] = width
    return Scaling(tuple(names), mean, std, tuple(standardised))


def count_tracks(pdg: NDArray[np.int32], pattern: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count tracks per kind (row, as in :data:`KINDS`) and missing pattern (column), shape (kinds, 4)."""
    nearest = np.minimum(np.searchsorted(_CODES, pdg), len(_CODES) - 1)
    kind = np.where(_CODES[nearest] == pdg, _KIND_OF_CODE[nearest], len(KINDS) - 1)
    patterns = len(tracks.PATTERN_NAMES)
    return np.bincount(kind * patterns + pattern, minlength=len(KINDS) * patterns).reshape(len(KINDS), patterns)


def named_counts(counts: NDArray[np.int64], simulation: bool) -> dict[str, dict[str, int]]:
    """Return counts of :func:`count_tracks` as kind → missing pattern → tracks, for JSON."""
    kinds = KINDS if simulation else (UNLABELLED,)
    if not simulation:
        counts = counts.sum(axis=0, keepdims=True)
    return {
        kind: {tracks.PATTERN_NAMES[index]: int(number) for index, number in enumerate(row)}
        for kind, row in zip(kinds, counts, strict=True)
    }
