"""Errors of the area under the ROC curve, and of the difference of two on the same tracks.

DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837: the AUC is a mean over signal and over background tracks of
how often a track is on the right side of the others; the spread of these parts gives its variance, and for two scores
of the same tracks, the spread of their differences. Nothing is drawn at random, and it takes n log n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml.evaluation.metrics import Flags, Scores

Real = NDArray[np.float64]


@dataclass(frozen=True)
class Placements:
    """How well each track is placed.

    Attributes:
        signal: (signal tracks,): fraction of the background that scores below; equal scores count one half.
        background: (background tracks,): fraction of the signal that scores above.
    """

    signal: Real
    background: Real


def placements(truth: Flags, scores: Scores) -> Placements:
    """Return the placements of tracks; both arrays have shape (tracks,), scores hold no NaN."""
    signal, background = scores[truth], scores[~truth]
    return Placements(_below(signal, background), 1 - _below(background, signal))


def _below(values: Scores, others: Scores) -> Real:
    """Return the fraction of ``others`` that is below each value."""
    if not len(others):
        return np.full(len(values), np.nan)
    ranked = np.sort(others)
    less, not_above = (np.searchsorted(ranked, values, side) for side in ("left", "right"))
    return np.asarray((less + not_above) / (2.0 * len(others)))


def auc_error(placed: Placements) -> float:
    """Return the standard error of the AUC; NaN with fewer than two signal or background tracks."""
    return _error(placed.signal, placed.background)


def auc_difference(first: Placements, second: Placements) -> tuple[float, float]:
    """Return the AUC of the first scores minus that of the second, and its standard error; NaN where undefined."""
    signal, background = first.signal - second.signal, first.background - second.background
    return float(signal.mean()) if len(signal) else float("nan"), _error(signal, background)


def _error(signal: Real, background: Real) -> float:
    if min(len(signal), len(background)) < 2:
        return float("nan")
    return float(np.sqrt(signal.var(ddof=1) / len(signal) + background.var(ddof=1) / len(background)))
