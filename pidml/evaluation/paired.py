"""Two selections on the same tracks: ratio and differences of their figures of merit, with a paired bootstrap.

Both selections fluctuate together with the tracks of the sample. Drawing tracks with replacement, and judging both on
the same draw, keeps that correlation; it is the same as drawing the joint counts of truth and both decisions from a
multinomial (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml.evaluation.counts import TARGET_PDG, bin_index, truth_matrix
from pidml.evaluation.intervals import ONE_SIGMA, proportion

Real = NDArray[np.float64]
_DRAWS = 2000


class PairedCounts:
    """Additive joint counts of two selections on the same tracks.

    Args:
        edges: edges of the bins of transverse momentum, GeV/c.

    Attributes:
        values: int64, shape (6 species, bins + 1, 2 truth, 2 selected by the first, 2 selected by the second).
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self.values = np.zeros((len(TARGET_PDG), len(self.edges), 2, 2, 2), np.int64)

    def add(
        self,
        pdg: NDArray[np.int32],
        pt: NDArray[np.float32],
        first: NDArray[np.bool_],
        second: NDArray[np.bool_],
    ) -> None:
        """Count a chunk: ``pdg`` and ``pt`` of shape (tracks,), decisions of shape (tracks, 6)."""
        cell = bin_index(pt, self.edges) * 8
        truth = truth_matrix(pdg)
        for target in range(len(TARGET_PDG)):
            index = cell + 4 * truth[:, target] + 2 * first[:, target] + second[:, target]
            self.values[target] += np.bincount(index, minlength=8 * len(self.edges)).reshape(-1, 2, 2, 2)


@dataclass(frozen=True)
class Ratio:
    """F1 of one selection divided by F1 of another, with its 68.27 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A figure of merit of one selection minus that of another.

    Attributes:
        value: the difference.
        low, high: its 68.27 % bootstrap interval.
        significance: the difference divided by the standard deviation of the bootstrap, in σ; 0 if the two selections
            decide alike.
    """

    value: float
    low: float
    high: float
    significance: float


def f1_ratio(cells: NDArray[np.int64], seed: int) -> Ratio:
    """Return F1(first) / F1(second) from joint counts, with the central interval of a paired bootstrap.

    Args:
        cells: joint counts, shape (2 truth, 2 first, 2 second).
        seed: of the bootstrap.
    """
    value = float(_ratio(cells[None])[0])
    return Ratio(value, *_interval(_ratio(_draws(cells, seed)) if np.isfinite(value) else np.array([])))


def differences(cells: NDArray[np.int64], seed: int) -> dict[str, Difference]:
    """Return purity, efficiency and F1 of the first selection minus those of the second; NaN where undefined.

    Args:
        cells: joint counts, shape (2 truth, 2 first, 2 second).
        seed: of the bootstrap.
    """
    draws = _draws(cells, seed)
    return {name: _difference(merit, cells, draws) for name, merit in _MERITS.items()}


def _difference(merit: Callable[[Real], Real], cells: NDArray[np.int64], draws: Real) -> Difference:
    first, second = _apart(cells[None])
    value = float((merit(first) - merit(second))[0])
    if np.isnan(value):
        return Difference(value, value, value, value)
    first, second = _apart(draws)
    drawn = merit(first) - merit(second)
    spread = float(np.nanstd(drawn))
    return Difference(value, *_interval(drawn), significance=value / spread if spread else 0.0)


def _draws(cells: NDArray[np.int64], seed: int) -> Real:
    """Return joint counts of the bootstrap's draws, shape (draws, 2, 2, 2); none without tracks."""
    total = int(cells.sum())
    if not total:
        return np.empty((0, 2, 2, 2))
    drawn = np.random.default_rng(seed).multinomial(total, cells.ravel() / total, size=_DRAWS)
    return drawn.reshape(-1, 2, 2, 2).astype(np.float64)


def _interval(drawn: Real) -> tuple[float, float]:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - ONE_SIGMA) / 2, (1 + ONE_SIGMA) / 2])
    return float(low), float(high)


def _apart(cells: NDArray[np.int64] | Real) -> tuple[Real, Real]:
    """Return the counts of each selection alone, shape (draws, 2 truth, 2 selected), of joint counts."""
    table = cells.astype(np.float64)
    return table.sum(axis=3), table.sum(axis=2)


def _ratio(cells: NDArray[np.int64] | Real) -> Real:
    """Return the ratio of F1 for joint counts of shape (draws, 2, 2, 2)."""
    first, second = _apart(cells)
    return proportion(_f1(first), _f1(second))


def _f1(table: Real) -> Real:
    """Return F1 for counts of shape (draws, 2 truth, 2 selected); NaN where there is nothing to select or selected."""
    tp, wrong = table[:, 1, 1], table[:, 0, 1] + table[:, 1, 0]
    return proportion(2 * tp, 2 * tp + wrong)


_MERITS: dict[str, Callable[[Real], Real]] = {
    "purity": lambda table: proportion(table[:, 1, 1], table[:, :, 1].sum(axis=1)),
    "efficiency": lambda table: proportion(table[:, 1, 1], table[:, 1].sum(axis=1)),
    "f1": _f1,
}
