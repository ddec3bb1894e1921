"""Bias and width of pulls, with their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml.evaluation.intervals import ONE_SIGMA

#: Tracks of a bin below which it is left out.
_LEAST_TRACKS = 30
#: A pull beyond this is an outlier.
OUTLIER = 5.0
#: √n times the error of the median of a unit Gaussian.
_MEDIAN_ERROR = float(np.sqrt(np.pi / 2))


@dataclass(frozen=True)
class Pull:
    """Pulls of some tracks; all but the first in units of the resolution.

    Attributes:
        tracks: their number.
        bias, bias_error: median and its error.
        width, width_error: half the central 68.27 % interval and its error.
        outliers: part of them beyond 5.
    """

    tracks: int
    bias: float
    bias_error: float
    width: float
    width_error: float
    outliers: float


def _half_width_error() -> float:
    """Return √n times the error of half the central interval (−1, 1) of a unit Gaussian.

    Asymptotic covariance of sample quantiles: tail·(1 − tail)/φ², tail²/φ² between them (Kendall and Stuart, 1, §14).
    """
    tail, density = (1 - ONE_SIGMA) / 2, np.exp(-0.5) / np.sqrt(2 * np.pi)
    return float(np.sqrt((tail * (1 - tail) - tail * tail) / 2) / density)


def pull_of(values: NDArray[np.float32]) -> Pull | None:
    """Return bias and width of pulls, or None if there are too few.

    Args:
        values: pulls, float32 (tracks,).
    """
    if len(values) < _LEAST_TRACKS:
        return None
    low, middle, high = np.quantile(values, [(1 - ONE_SIGMA) / 2, 0.5, (1 + ONE_SIGMA) / 2])
    width, root = float(high - low) / 2, np.sqrt(len(values))
    return Pull(
        len(values), float(middle), width * _MEDIAN_ERROR / root, width, width * _half_width_error() / root,
        float(np.mean(np.abs(values) > OUTLIER)),
    )  # fmt: skip


def binned(values: NDArray[np.float32], at: NDArray[np.float32], edges: Sequence[float]) -> list[Pull | None]:
    """Return :func:`pull_of` in each bin of ``at``, lower edges included."""
    index = np.searchsorted(edges, at, side="right") - 1
    return [pull_of(values[index == number]) for number in range(len(edges) - 1)]
