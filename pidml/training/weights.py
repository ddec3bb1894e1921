"""Weights of tracks in the loss, so that rare species or rare missing patterns count as much as common ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.prepared import PreparedDataset, Split, rows_of
from pidml.data.taught import hardly_seen
from pidml.spec.model_sections import Training
from pidml.training.labels import class_indices

_ROWS = 1_000_000
_ROUNDS = 50


def group_counts(sample: Split, species: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """Count a sample's tracks per class (row; the last one is every other particle) and missing pattern (column).

    Args:
        sample: read in chunks.
        species: species to be identified, in the order of the classes.
        names: names of the features.

    Returns:
        int64 (classes, 4).
    """
    patterns = len(tracks.PATTERN_NAMES)
    counts = np.zeros((len(species) + 1) * patterns, np.int64)
    for rows in sample.chunks(_ROWS):
        classes = class_indices(rows_of(sample.pdg, rows), species)
        pattern = tracks.feature_pattern(rows_of(sample.features, rows), names)
        counts += np.bincount(classes * patterns + pattern, minlength=len(counts))
    return counts.reshape(-1, patterns)


def balanced_weights(
    counts: NDArray[np.int64] | NDArray[np.float64], *, classes: bool, patterns: bool
) -> NDArray[np.float32]:
    """Return a weight per class and missing pattern, float32 (classes, patterns); the mean over all tracks is 1.

    Both together are balanced by scaling rows and columns in turn (iterative proportional fitting: Deming and Stephan,
    1940); where classes and patterns exclude each other, so that no such weights exist, patterns are balanced exactly
    and classes nearly. What does not occur has the weight 1.

    Args:
        counts: tracks per class (row) and pattern (column).
        classes: every class that occurs gets the same sum of weights.
        patterns: every pattern that occurs does.

    >>> balanced_weights(np.array([[10, 0], [20, 10]]), classes=True, patterns=False).tolist()
    [[2.0, 2.0], [0.6666666865348816, 0.6666666865348816]]
    """
    row, column = np.ones((len(counts), 1)), np.ones((1, counts.shape[1]))
    for _ in range(_ROUNDS if classes and patterns else 1):
        if classes:
            row = _equal(counts * column, axis=1)
        if patterns:
            column = _equal(counts * row, axis=0)
    weights = row * column
    weights *= counts.sum() / (counts * weights).sum()
    weights[counts.sum(axis=1) == 0], weights[:, counts.sum(axis=0) == 0] = 1.0, 1.0
    return np.asarray(weights, np.float32)


def sample_weights(
    prepared: PreparedDataset, training: Training, species: Sequence[str], *, draws: bool = True
) -> NDArray[np.float32] | None:
    """Return the weights that a training asks for, as :func:`balanced_weights` does, or None if it asks for none.

    Missing patterns that are hardly seen take no part in the balance: their tracks weigh 1.

    Args:
        prepared: the training sample is counted.
        training: the settings.
        species: species to be identified, in the order of the classes.
        draws: whether ``undersample`` is done by drawing; if not, weights do it.
    """
    classes, patterns = training.class_weights == "balanced", training.pattern_weights == "balanced"
    patterns |= training.undersample and not draws
    if not (classes or patterns):
        return None
    counts = group_counts(prepared.split("train"), species, prepared.features).astype(np.float64)
    counts[:, hardly_seen(counts.sum(axis=0))] = 0  # else a handful of tracks would outweigh all others
    if training.undersample and draws:  # classes as in the epochs, where every pattern is as frequent as the rarest
        counts *= _equal(counts, axis=0)
    return balanced_weights(counts, classes=classes, patterns=patterns)


def _equal(sums: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return factors that make all sums along an axis 1; 1 for what does not occur."""
    total = sums.sum(axis=axis, keepdims=True)
    return np.where(total > 0, 1 / np.where(total > 0, total, 1.0), 1.0)
