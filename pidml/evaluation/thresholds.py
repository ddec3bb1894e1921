"""The certainty from which a track is accepted, chosen on the validation sample.

Among all thresholds there are, the one is taken that has the largest F1, or that accepts most tracks while their purity
is at least the target, or that accepts fewest while the efficiency is at least the target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml.spec.thresholds_section import Thresholds

#: A purity counts only with so many tracks accepted: the few best tracks of any sample are pure by chance.
FEWEST_ACCEPTED = 30


@dataclass(frozen=True)
class Choice:
    """A threshold and what it reaches on the sample it was chosen on.

    Attributes:
        threshold: a track is accepted when its certainty is at or above it.
        reached: the F1, purity or efficiency that was asked for.
        met: whether the target is reached.
    """

    threshold: float
    reached: float
    met: bool


def choose(rule: Thresholds, truth: NDArray[np.bool_], certainty: NDArray[np.float32]) -> Choice:
    """Return the threshold that a rule asks for; where no threshold reaches the target, the one that comes closest.

    The threshold lies halfway between two neighbouring certainties, so that rounding in another program changes no
    decision.

    Args:
        rule: its ``mode`` and ``target``.
        truth: whether each track is of the species, shape (tracks,); at least one is.
        certainty: float32, shape (tracks,).
    """
    order = np.argsort(-certainty, kind="stable")
    ranked = certainty[order].astype(np.float64)
    cuts = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # only between different certainties
    true_positives, accepted = np.cumsum(truth[order], dtype=np.int64)[cuts], cuts + 1
    signal = int(truth.sum())
    if rule.mode == "f1":
        figure = 2 * true_positives / (accepted + signal)
        best = int(np.argmax(figure))
    elif rule.mode == "efficiency":
        figure = true_positives / signal
        best = int(np.argmax(figure >= rule.target))  # accepting everything reaches every target
    else:
        figure = np.where(accepted >= min(FEWEST_ACCEPTED, len(ranked)), true_positives / accepted, 0.0)
        enough = np.flatnonzero(figure >= rule.target)
        best = int(enough[-1]) if len(enough) else int(np.argmax(figure))
    reached = float(figure[best])
    met = rule.mode == "f1" or reached >= rule.target
    below = ranked[cuts[best] + 1] if cuts[best] + 1 < len(ranked) else -1.0
    return Choice(_between(ranked[cuts[best]], below), reached, met)


def reached_at(rule: Thresholds, truth: NDArray[np.bool_], certainty: NDArray[np.float32], threshold: float) -> float:
    """Return the F1, purity or efficiency that a rule is about, at a given threshold; NaN where it is undefined.

    Args:
        rule: its ``mode``.
        truth: whether each track is of the species, shape (tracks,).
        certainty: float32, shape (tracks,).
        threshold: a track is accepted when its certainty is at or above it.
    """
    accepted = certainty >= np.float32(threshold)
    true_positives, signal = int((truth & accepted).sum()), int(truth.sum())
    over, under = {
        "f1": (2 * true_positives, int(accepted.sum()) + signal),
        "efficiency": (true_positives, signal),
        "purity": (true_positives, int(accepted.sum())),
    }[rule.mode]
    return over / under if under else float("nan")


def _between(lowest: float, below: float) -> float:
    """Return a threshold between the lowest certainty that is accepted and the next one, which float32 tells apart.

    Below the lowest of all, where ``below`` is negative, certainties down to 0 count as seen.
    """
    middle = 0.5 * (lowest + max(below, 0.0))
    return float(middle if below < float(np.float32(middle)) <= lowest else lowest)


def best_f1_threshold(truth: NDArray[np.bool_], certainty: NDArray[np.float32]) -> tuple[float, float]:
    """Return the threshold with the largest F1, and that F1; see :func:`choose`."""
    best = choose(Thresholds(), truth, certainty)
    return best.threshold, best.reached
