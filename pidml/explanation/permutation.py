"""Permutation importance: what a classifier loses when a feature's values are exchanged among tracks.

Breiman, Machine Learning 45 (2001) 5. Values are exchanged between tracks of the same missing pattern, which general
libraries do not offer: exchanged at large, a track would lose a detector that it had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml.evaluation import metrics
from pidml.evaluation.counts import PATTERNS, truth_matrix
from pidml.evaluation.intervals import proportion
from pidml.explanation.sample import Matrix, Sample, Subject

Predict = Callable[[Matrix], Matrix]
Real = NDArray[np.float64]
#: Figure of merit → sign of a change for the worse.
FIGURES: dict[str, int] = {"auc": -1, "f1": -1, "log_loss": 1}
#: None stands for all tracks.
SELECTIONS: tuple[int | None, ...] = (None, *PATTERNS)
#: Certainties nearer to 0 or 1 than float32 can tell apart count as this near.
_SMALLEST = 2.0**-24


@dataclass(frozen=True)
class PermutationImportance:
    """Loss of quality per subject; float64, NaN where a figure is undefined or the tracks lack the features.

    Attributes:
        baseline: (figures, selections, species): the figures of merit as they are.
        value: (subjects, figures, selections, species): how much worse they become, mean of the repeats.
        error: standard error of that mean.
    """

    baseline: Real
    value: Real
    error: Real


def permutation_importance(
    predict: Predict,
    sample: Sample,
    subjects: tuple[Subject, ...],
    outputs: Matrix,
    thresholds: Matrix,
    *,
    repeats: int,
    seed: int,
) -> PermutationImportance:
    """Measure the decrease of AUC and F1 and the increase of the logarithmic loss.

    Args:
        predict: raw features (tracks, features) → certainties (tracks, species).
        sample: the tracks, with labels.
        subjects: what is exchanged; the features of a kind stay together.
        outputs: what ``predict`` gives for the sample, float32 (tracks, species).
        thresholds: float32 (tracks, species); a track is accepted when certainty ≥ threshold.
        repeats: number of random exchanges, at least 2.
        seed: of the exchanges.
    """
    rng = np.random.default_rng(seed)
    truth = truth_matrix(sample.pdg)
    groups = [np.arange(len(sample)) if each is None else np.flatnonzero(sample.pattern == each) for each in SELECTIONS]

    def judged(scores: Matrix) -> Real:
        return np.stack([_figures(truth[rows], scores[rows], thresholds[rows]) for rows in groups], axis=1)

    def without(subject: Subject) -> Matrix:
        features, scores = exchanged(sample, subject, rng), outputs.copy()
        own = list(subject.columns)
        before, after = sample.features[:, own], features[:, own]
        differs = np.flatnonzero(~((before == after) | np.isnan(before)).all(axis=1))  # the others give what they gave
        if len(differs):
            scores[differs] = predict(features[differs])
        return scores

    signs = np.array(list(FIGURES.values()))[:, None, None]
    baseline = judged(outputs)
    changes = np.full((len(subjects), repeats, *baseline.shape), np.nan)
    for position, subject in enumerate(subjects):
        for repeat in range(repeats):
            changes[position, repeat] = signs * (judged(without(subject)) - baseline)
        lacking = [not _has(sample, subject, rows) for rows in groups]
        changes[position, :, :, lacking] = np.nan
    error = changes.std(axis=1, ddof=1) / np.sqrt(repeats)
    return PermutationImportance(baseline, changes.mean(axis=1), error)


def exchanged(sample: Sample, subject: Subject, rng: np.random.Generator) -> Matrix:
    """Return the features with those of a subject exchanged among tracks that lack the same values."""
    features, columns = sample.features.copy(), np.array(subject.columns)
    for group in sample.alike:
        features[np.ix_(group, columns)] = sample.features[np.ix_(rng.permutation(group), columns)]
    return features


def _has(sample: Sample, subject: Subject, rows: NDArray[np.int64]) -> bool:
    return bool((~np.isnan(sample.features[np.ix_(rows, np.array(subject.columns))])).any())


def _figures(truth: NDArray[np.bool_], scores: Matrix, thresholds: Matrix) -> Real:
    """Return AUC, F1 and logarithmic loss (nats per track) per species, shape (3, species); NaN where undefined."""
    selected = scores >= thresholds
    right, wrong = (selected & truth).sum(axis=0), (selected ^ truth).sum(axis=0)
    of_truth = np.clip(np.where(truth, scores, 1 - scores).astype(np.float64), _SMALLEST, 1.0)
    return np.stack(
        [
            np.array([metrics.auc(truth[:, each], scores[:, each]) for each in range(truth.shape[1])]),
            proportion(2 * right, 2 * right + wrong),
            proportion(-np.log(of_truth).sum(axis=0), len(truth)),
        ]
    )
