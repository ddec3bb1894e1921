"""Purity, efficiency, F1 and AUC of a selection, and what all its thresholds give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml.evaluation.counts import Outcome
from pidml.evaluation.intervals import Real, clopper_pearson, f1_of_jaccard, proportion

Scores = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """Values with the limits of their confidence interval; float64 arrays of one shape, NaN where undefined."""

    value: Real
    low: Real
    high: Real


@dataclass(frozen=True)
class Performance:
    """Purity (precision), efficiency (recall) and F1 of the outcomes they were made of."""

    purity: Interval
    efficiency: Interval
    f1: Interval


def performance(outcome: Outcome) -> Performance:
    """Return purity, efficiency and F1 with Clopper–Pearson intervals.

    Purity is TP / (TP + FP), undefined (NaN) if nothing is selected. Efficiency is TP / (TP + FN), undefined without
    signal. F1 = 2·TP / (2·TP + FP + FN), undefined only if there is neither signal nor a selected track.
    """
    tp, union = outcome.tp, outcome.tp + outcome.fp + outcome.fn
    low, high = clopper_pearson(tp, union)
    return Performance(
        purity=_binomial(tp, tp + outcome.fp),
        efficiency=_binomial(tp, tp + outcome.fn),
        f1=Interval(f1_of_jaccard(proportion(tp, union)), f1_of_jaccard(low), f1_of_jaccard(high)),
    )


def _binomial(successes: NDArray[np.int64], trials: NDArray[np.int64]) -> Interval:
    return Interval(proportion(successes, trials), *clopper_pearson(successes, trials))


def auc(truth: Flags, scores: Scores) -> float:
    """Return the area under the ROC curve: the probability that a signal track scores above a background track.

    Exact (Mann–Whitney): equal scores count one half. NaN if signal or background is absent.

    Args:
        truth: whether each track is signal, shape (tracks,).
        scores: certainties, or any quantity that rises with it, shape (tracks,); −inf is allowed, NaN is not.
    """
    signal = np.sort(scores[truth])
    background = np.sort(scores[~truth])
    if not len(signal) or not len(background):
        return float("nan")
    below = np.searchsorted(background, signal, side="left").sum(dtype=np.float64)
    not_above = np.searchsorted(background, signal, side="right").sum(dtype=np.float64)
    return float((below + not_above) / (2.0 * len(signal) * len(background)))


@dataclass(frozen=True)
class Curve:
    """What every possible threshold gives, from the highest threshold to the lowest; equal shapes (points,).

    Attributes:
        threshold: the smallest score that is accepted.
        purity, efficiency: of the tracks accepted then.
        false_positive_rate: accepted part of the background.
    """

    threshold: NDArray[np.float64]
    purity: Real
    efficiency: Real
    false_positive_rate: Real


def curve(truth: Flags, scores: Scores, points: int | None = None) -> Curve:
    """Return purity, efficiency and false-positive rate at every distinct score.

    Args:
        truth: as for :func:`auc`.
        scores: as for :func:`auc`; tracks of score −inf are never accepted.
        points: thin the curve out to about this many points, evenly spaced along it; None keeps all.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    ranked, flags = scores[order], truth[order]
    tp = np.cumsum(flags, dtype=np.int64)
    accepted = np.arange(1, len(flags) + 1, dtype=np.int64)
    last_of_its_score = np.ones(len(ranked), bool)
    last_of_its_score[:-1] = ranked[1:] != ranked[:-1]
    keep = np.flatnonzero(last_of_its_score & np.isfinite(ranked))
    tp, accepted, ranked = tp[keep], accepted[keep], ranked[keep]
    signal = int(np.count_nonzero(truth))
    result = Curve(
        threshold=ranked.astype(np.float64),
        purity=proportion(tp, accepted),
        efficiency=proportion(tp, signal),
        false_positive_rate=proportion(accepted - tp, len(flags) - signal),
    )
    return result if points is None else _thinned(result, points)


def _thinned(full: Curve, points: int) -> Curve:
    """Keep points evenly spaced in the length of the ROC curve, so that steep and flat parts are both drawn well."""
    if len(full.threshold) <= points:
        return full
    steps = np.abs(np.diff(np.nan_to_num(full.efficiency))) + np.abs(np.diff(np.nan_to_num(full.false_positive_rate)))
    length = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.searchsorted(length, np.linspace(0.0, length[-1], points))
    # The purity changes fastest at the start of the curve, where its length hardly grows.
    start = np.unique(np.geomspace(1, len(length), points // 4).astype(int) - 1)
    keep = np.unique(np.concatenate([start, wanted, [len(length) - 1]]))
    keep = keep[keep < len(length)]
    return Curve(full.threshold[keep], full.purity[keep], full.efficiency[keep], full.false_positive_rate[keep])
