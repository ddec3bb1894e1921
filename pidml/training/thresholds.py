"""The certainty from which a track is accepted, chosen on the validation sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_f1_threshold(truth: NDArray[np.bool_], certainty: NDArray[np.float32]) -> tuple[float, float]:
    """Return the threshold with the largest F1, and that F1, over all thresholds there are.

    A track is accepted when its certainty is at or above the threshold. The threshold lies halfway between two
    neighbouring certainties, so that rounding in another program changes no decision.

    Args:
        truth: whether each track is of the species, shape (tracks,); at least one is.
        certainty: float32, shape (tracks,).
    """
    order = np.argsort(-certainty, kind="stable")
    ranked = certainty[order].astype(np.float64)
    true_positives = np.cumsum(truth[order], dtype=np.int64)
    accepted = np.arange(1, len(ranked) + 1)
    f1 = 2 * true_positives / (accepted + true_positives[-1])
    last_of_equals = np.append(ranked[1:] < ranked[:-1], True)
    f1[~last_of_equals] = -1.0
    best = int(np.argmax(f1))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float(0.5 * (ranked[best] + below)), float(f1[best])
