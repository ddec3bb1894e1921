"""Figures of merit of one replica: purity, efficiency, F1 and AUC per species, as Benchmark counts them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pidml.data.folds import HELD_OUT, FoldedDataset
from pidml.data.prepared import PreparedDataset, Split, rows_of
from pidml.evaluation import metrics
from pidml.evaluation.counts import TARGET_PDG, Outcome, truth_matrix
from pidml.evaluation.labelled import labelled_test
from pidml.evaluation.results import CHUNK, Scores, score_table
from pidml.evaluation.working_points import WorkingPoints, read_working_points
from pidml.replicas.plan import TEST, Replica
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES

if TYPE_CHECKING:
    from pidml.training import Classifier

FIGURES = ("f1", "purity", "efficiency", "auc")

#: Sample → species → figure of merit → value; NaN where undefined.
Figures = dict[str, dict[str, dict[str, float]]]


def figures_of(
    replica: Replica, train_dirs: Sequence[Path], prepared: PreparedDataset, job: JobSpec, scratch: Path
) -> Figures:
    """Judge a replica on the test sample and, if it left out a fold, on that too.

    Its thresholds are those that the job's ``thresholds`` ask for, chosen on its own validation sample.

    Args:
        replica: which training it is.
        train_dirs: its networks: one with six outputs, or several with some species each.
        prepared: the whole dataset.
        job: its section ``thresholds`` is used.
        scratch: directory for scores, 24 B per track, while they are needed.

    Raises:
        NoLabels: the data are experimental.
        MissingColumn: the test sample has no transverse momentum.
        NoTracks: the test sample is empty.
        CorruptFile, TrainingError: a training output is damaged or does not fit.
    """
    from pidml.training import load_classifier

    classifier = load_classifier(train_dirs)
    samples = {TEST: labelled_test(prepared)}
    if replica.fold is not None:
        prepared = FoldedDataset.without(prepared, replica.fold)
        samples[HELD_OUT] = prepared.split(HELD_OUT)
    points = read_working_points(train_dirs, prepared, job.thresholds)
    result: Figures = {}
    for name, sample in samples.items():
        result[name] = judged(sample, _scores(classifier, sample, scratch), points)
    return result


def _scores(classifier: Classifier, sample: Split, scratch: Path) -> Scores:
    return score_table(sample, lambda rows: classifier.predict(rows_of(sample.features, rows)), scratch)


def judged(sample: Split, scores: Scores, points: WorkingPoints) -> dict[str, dict[str, float]]:
    """Return the figures of merit per species.

    Args:
        sample: labelled tracks.
        scores: their certainties, float32 (tracks, 6).
        points: from which certainty a track is accepted.
    """
    counts = np.zeros((4, len(TARGET_PDG)), np.int64)
    for rows in sample.chunks(CHUNK):
        limits = points.at(sample.column("fPt")[rows]) if points.bins else points.thresholds.astype(np.float32)
        truth, selected = truth_matrix(rows_of(sample.pdg, rows)), np.asarray(scores[rows]) >= limits
        outcomes = (truth & selected, ~truth & selected, truth & ~selected, ~truth & ~selected)
        counts += np.stack([each.sum(axis=0) for each in outcomes])
    found = metrics.performance(Outcome(*counts))
    pdg = np.asarray(sample.pdg)
    result = {}
    for position, name in enumerate(TARGET_NAMES):
        auc = metrics.auc(pdg == TARGET_PDG[position], np.ascontiguousarray(scores[:, position]))
        values = (found.f1.value[position], found.purity.value[position], found.efficiency.value[position], auc)
        result[name] = {figure: float(value) for figure, value in zip(FIGURES, values, strict=True)}
    return result
