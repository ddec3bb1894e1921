"""Whether a certainty means what it says: of tracks with certainty 0.8, are 80 % of the species?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pidml.evaluation.counts import TARGET_PDG, truth_matrix
from pidml.evaluation.intervals import Real, clopper_pearson, proportion

BINS = 20
#: Bins of the certainty distributions that are drawn; a multiple of :data:`BINS`.
FINE_BINS = 100


@dataclass
class Reliability:
    """Additive histograms of certainty, per target species and truth.

    Attributes:
        counts: int64, shape (6, 2, FINE_BINS): number of tracks by truth and certainty.
        sums: float64, shape (6, FINE_BINS): summed certainty.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(TARGET_PDG), 2, FINE_BINS), np.int64))
    sums: Real = field(default_factory=lambda: np.zeros((len(TARGET_PDG), FINE_BINS)))

    def add(self, pdg: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
        """Count a chunk: ``pdg`` of shape (tracks,), certainties in [0, 1] of shape (tracks, 6)."""
        truth = truth_matrix(pdg)
        index = np.clip((scores * FINE_BINS).astype(np.int64), 0, FINE_BINS - 1)
        for target in range(len(TARGET_PDG)):
            cell = index[:, target] + FINE_BINS * truth[:, target]
            self.counts[target] += np.bincount(cell, minlength=2 * FINE_BINS).reshape(2, FINE_BINS)
            self.sums[target] += np.bincount(index[:, target], weights=scores[:, target], minlength=FINE_BINS)

    def diagram(self, target: int) -> dict[str, Real]:
        """Return the reliability diagram of one species, arrays of shape (BINS,), NaN where a bin is empty.

        ``certainty`` is the mean certainty in each bin, ``fraction`` (with ``low``, ``high``) the part of the bin's
        tracks that are of the species, ``n`` the number of tracks.
        """
        counts = self.counts[target].reshape(2, BINS, -1).sum(axis=2)
        sums = self.sums[target].reshape(BINS, -1).sum(axis=1)
        total = counts.sum(axis=0)
        low, high = clopper_pearson(counts[1], total)
        return {
            "certainty": proportion(sums, total),
            "fraction": proportion(counts[1], total),
            "low": low,
            "high": high,
            "n": total.astype(np.float64),
        }

    def expected_calibration_error(self, target: int) -> float:
        """Return Σ n/N · |fraction − mean certainty| over the bins (Naeini et al., AAAI 2015); NaN without tracks."""
        each = self.diagram(target)
        filled = each["n"] > 0
        if not filled.any():
            return float("nan")
        gap = np.abs(each["fraction"] - each["certainty"])[filled]
        return float(np.average(gap, weights=each["n"][filled]))
