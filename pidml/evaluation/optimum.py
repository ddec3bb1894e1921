"""The best any classifier can do, known exactly where the tracks come from this package's own simulation.

The simulation's likelihood is known in closed form and gives each track's posterior for exactly the inputs a network
sees. Cut at the threshold that maximises F1 on the validation sample, as for networks, it is the optimum against
which they are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml import simulation, tracks
from pidml.data.prepared import PreparedDataset
from pidml.evaluation.counts import TARGET_PDG, bin_index, truth_matrix
from pidml.evaluation.intervals import ONE_SIGMA, proportion

Features = NDArray[np.float32]
_MOMENTUM = {"fPx", "fPy", "fPz"}
#: Of the columns of the full table some say more, such as the number of clusters.
_DESCRIBED = {column.name for column in tracks.TRAINING_COLUMNS}
_DRAWS = 2000


@dataclass(frozen=True)
class Posterior:
    """The exact posterior for a dataset's features and momentum limits."""

    features: tuple[str, ...]
    limits: tracks.MomentumLimits

    def predict(self, features: Features) -> NDArray[np.float32]:
        """Return the probability of each target species, shape (tracks, 6), float32.

        Args:
            features: raw values, shape (tracks, features), NaN for missing.
        """
        columns = {name: features[:, index] for index, name in enumerate(self.features)}
        return simulation.posterior(columns, self.features, self.limits).astype(np.float32)


def exact_posterior(prepared: PreparedDataset, *, primaries_only: bool = False) -> tuple[Posterior | None, str]:
    """Return the exact posterior for a dataset, or None with the reason why it is not known.

    Args:
        prepared: its ``meta.json`` says in ``likelihood_known`` whether this package simulated all its tracks.
        primaries_only: whether the dataset was cut to physical primaries.
    """
    if not prepared.meta.get("likelihood_known", False):
        return None, "the tracks do not come from this package's simulation, whose likelihood alone is known exactly"
    if unknown := sorted(set(prepared.features) - _DESCRIBED):
        return None, f"the likelihood does not describe {', '.join(unknown)}"
    if not set(prepared.features) >= _MOMENTUM:
        return None, "the features do not hold the momentum's three components, which the likelihood needs"
    if primaries_only:
        return None, "only primaries were kept, which the likelihood does not describe"
    limits = prepared.meta["momentum_limits"]
    return Posterior(prepared.features, tracks.MomentumLimits(tof=limits["tof"], trd=limits["trd"])), ""


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


def f1_ratio(cells: NDArray[np.int64], seed: int) -> Ratio:
    """Return F1(first) / F1(second) from joint counts.

    The interval is the central one of a bootstrap: drawing tracks with replacement is drawing the eight joint counts
    from a multinomial, which keeps the correlation between two selections of the same tracks.

    Args:
        cells: joint counts, shape (2 truth, 2 first, 2 second).
        seed: of the bootstrap.
    """
    total = int(cells.sum())
    value = float(_ratio(cells.reshape(1, 8))[0])
    if not total or np.isnan(value):
        return Ratio(float("nan"), float("nan"), float("nan"))
    draws = np.random.default_rng(seed).multinomial(total, cells.ravel() / total, size=_DRAWS)
    ratios = _ratio(draws)
    ratios = ratios[np.isfinite(ratios)]
    low, high = np.quantile(ratios, [(1 - ONE_SIGMA) / 2, (1 + ONE_SIGMA) / 2]) if len(ratios) else (np.nan, np.nan)
    return Ratio(value, float(low), float(high))


def _ratio(cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the ratio for joint counts of shape (draws, 8)."""
    table = cells.reshape(-1, 2, 2, 2).astype(np.float64)
    first, second = _f1(table.sum(axis=3)), _f1(table.sum(axis=2))
    return proportion(first, second)


def _f1(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F1 for counts of shape (draws, 2 truth, 2 selected); NaN where there is nothing to select or selected."""
    tp, wrong = table[:, 1, 1], table[:, 0, 1] + table[:, 1, 0]
    return proportion(2 * tp, 2 * tp + wrong)
