"""What values a sample holds: range of each feature, and how many tracks have each missing pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pidml import tracks

#: Rows taken at a time, so that they stay in the processor's cache.
_BLOCK = 8192
#: Values below which nothing is said about whether a feature varies.
_LEAST_VALUES = 100
#: Spread, relative to the largest magnitude, that rounding to float32 alone can leave.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Survey:
    """Of a sample, or a part of one.

    Attributes:
        names: features.
        patterns: int64 (4,), tracks per missing pattern.
        number: int64 (features,), values that are there.
        low, high: float32 (features,), smallest and largest of them; NaN where there is none.
    """

    names: tuple[str, ...]
    patterns: NDArray[np.int64]
    number: NDArray[np.int64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @classmethod
    def zero(cls, names: Sequence[str]) -> Self:
        """Return the survey of no tracks."""
        nothing = np.full(len(names), np.nan, np.float32)
        patterns = np.zeros(len(tracks.PATTERN_NAMES), np.int64)
        return cls(tuple(names), patterns, np.zeros(len(names), np.int64), nothing, nothing)

    @classmethod
    def of(cls, features: NDArray[np.float32], names: Sequence[str]) -> Self:
        """Return the survey of a matrix (tracks, features) of raw features, NaN where missing."""
        result = cls.zero(names)
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK]
            patterns = np.bincount(tracks.feature_pattern(block, names), minlength=len(tracks.PATTERN_NAMES))
            with np.errstate(invalid="ignore"):  # damaged files may hold signalling NaN
                low, high = np.fmin.reduce(block, axis=0), np.fmax.reduce(block, axis=0)
            result = result + cls(tuple(names), patterns, np.count_nonzero(~np.isnan(block), axis=0), low, high)
        return result

    def __add__(self, other: Survey) -> Self:
        """Return the survey of both parts."""
        return type(self)(
            self.names, self.patterns + other.patterns, self.number + other.number,
            np.fmin(self.low, other.low), np.fmax(self.high, other.high),
        )  # fmt: skip

    @property
    def tracks(self) -> int:
        """Number of tracks."""
        return int(self.patterns.sum())

    @property
    def absent(self) -> tuple[str, ...]:
        """Features that every track lacks."""
        return tuple(name for name, number in zip(self.names, self.number, strict=True) if not number)

    @property
    def constant(self) -> dict[str, float]:
        """Features with the same value wherever they are there, but for rounding → that value."""
        found: dict[str, float] = {}
        for name, number, low, high in zip(self.names, self.number, self.low, self.high, strict=True):
            if number >= _LEAST_VALUES and high - low <= _ROUNDING * max(abs(low), abs(high)):
                found[name] = float(low)
        return found

    def as_json(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        ranges = zip(self.number.tolist(), self.low.tolist(), self.high.tolist(), strict=True)
        return {
            "patterns": {tracks.PATTERN_NAMES[index]: number for index, number in enumerate(self.patterns.tolist())},
            "features": [
                {"name": name, "number": number, "low": low if number else None, "high": high if number else None}
                for name, (number, low, high) in zip(self.names, ranges, strict=True)
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the survey that :meth:`as_json` described."""
        rows = content["features"]
        low, high = (np.array([row[key] for row in rows], np.float32) for key in ("low", "high"))
        patterns = np.array([content["patterns"][name] for name in tracks.PATTERN_NAMES.values()], np.int64)
        names, number = tuple(row["name"] for row in rows), np.array([row["number"] for row in rows], np.int64)
        return cls(names, patterns, number, low, high)
