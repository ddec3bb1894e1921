"""Binomial confidence intervals.

Purity and efficiency are binomial proportions. F1 = 2·TP / (2·TP + FP + FN) is not, but it is a rising function of
one: of the tracks that are signal, selected or both, the fraction J = TP / (TP + FP + FN) that is both (the Jaccard
index), with F1 = 2J / (1 + J). Its interval is therefore the binomial interval of J, mapped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

#: Central probability of one standard deviation of a Gaussian.
ONE_SIGMA = 0.6826894921370859
INTERVAL_NAME = "Clopper–Pearson, 68.27 % confidence"

Real = NDArray[np.float64]


def proportion(successes: ArrayLike, trials: ArrayLike) -> Real:
    """Return ``successes / trials`` as float64, NaN where there are no trials."""
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    return np.asarray(np.divide(k, n, out=np.full(n.shape, np.nan), where=n > 0))


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, confidence: float = ONE_SIGMA) -> tuple[Real, Real]:
    """Return the exact (Clopper–Pearson) confidence interval of a binomial proportion.

    Clopper and Pearson, Biometrika 26 (1934) 404: the interval covers the true proportion with at least the stated
    probability whatever the proportion is; near 0 and 1 it is one-sided, never of zero width.

    Args:
        successes: counts k of any shape.
        trials: counts n ≥ k, of the same shape (or broadcastable).
        confidence: central probability, one Gaussian standard deviation by default.

    Returns:
        Lower and upper limits, float64; NaN where there are no trials.
    """
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    tail = (1.0 - confidence) / 2.0
    low = stats.beta.ppf(tail, np.maximum(k, 0.5), n - k + 1.0)
    high = stats.beta.ppf(1.0 - tail, k + 1.0, np.maximum(n - k, 0.5))
    empty = n <= 0
    return (
        np.where(empty, np.nan, np.where(k <= 0, 0.0, low)),
        np.where(empty, np.nan, np.where(k >= n, 1.0, high)),
    )


def f1_of_jaccard(jaccard: Any) -> Any:
    """Return F1 = 2J / (1 + J) of the Jaccard index ``jaccard``."""
    return 2.0 * jaccard / (1.0 + jaccard)
