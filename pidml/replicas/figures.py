"""Figures of merit of one replica: purity, efficiency, F1 and AUC per species, as Benchmark counts them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pidml.data.folds import HELD_OUT, FoldedDataset
from pidml.data.prepared import PreparedDataset, Split, rows_of
from pidml.evaluation import metrics
from pidml.evaluation.counts import TARGET_PDG, SelectionCounts
from pidml.evaluation.labelled import labelled_test
from pidml.evaluation.results import CHUNK, Scores, score_table
from pidml.evaluation.working_points import WorkingPoints, read_working_points
from pidml.replicas.plan import TEST, Replica
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES

if TYPE_CHECKING:
    from pidml.training import Classifier

_ALL_MOMENTA = (0.0, np.inf)
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
    counts, momenta = SelectionCounts(_ALL_MOMENTA), sample.column("fPt")
    for rows in sample.chunks(CHUNK):
        pt = np.asarray(momenta[rows])
        together = np.zeros(len(pt), np.uint8)  # patterns are not told apart
        counts.add(rows_of(sample.pdg, rows), together, pt, np.asarray(scores[rows]) >= points.at(pt))
    pdg = np.asarray(sample.pdg)
    result = {}
    for position, name in enumerate(TARGET_NAMES):
        found = metrics.performance(counts.total(position))
        auc = metrics.auc(pdg == TARGET_PDG[position], np.ascontiguousarray(scores[:, position]))
        values = (found.f1.value.item(), found.purity.value.item(), found.efficiency.value.item(), auc)
        result[name] = {figure: float(value) for figure, value in zip(FIGURES, values, strict=True)}
    return result
