"""Scores of the methods that are compared, and what is counted of each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.prepared import Split
from pidml.evaluation import metrics
from pidml.evaluation.calibration import Reliability
from pidml.evaluation.counts import (
    CLASS_NAMES,
    PATTERNS,
    TARGET_PDG,
    SelectionCounts,
    bin_index,
    class_index,
)
from pidml.species import TARGET_NAMES

Scores = NDArray[np.float32]
Groups = dict[tuple[int | None, int | None], NDArray[np.uint32]]
CHUNK = 200_000
_CURVE_POINTS = 400


@dataclass(frozen=True)
class Sample:
    """What is known of the tracks that methods are judged on; arrays of shape (tracks,)."""

    pdg: NDArray[np.int32]
    pattern: NDArray[np.uint8]
    pt: NDArray[np.float32]

    @classmethod
    def of(cls, split: Split, features: Sequence[str]) -> Sample:
        """Read the labels, missing patterns (as networks see them) and transverse momenta of a split."""
        pattern = np.empty(len(split), np.uint8)
        for rows in split.chunks():
            pattern[rows] = tracks.feature_pattern(np.asarray(split.features[rows]), features)
        return cls(np.asarray(split.pdg), pattern, np.array(split.column("fPt")))

    def chunks(self) -> Iterator[slice]:
        """Yield slices that cover the sample in order."""
        for start in range(0, len(self.pdg), CHUNK):
            yield slice(start, min(start + CHUNK, len(self.pdg)))


@dataclass(frozen=True)
class Method:
    """One way of identifying, with its scores of the sample.

    Attributes:
        name: key in tables: ``network``, ``nsigma``, ``bayes`` or ``optimum``.
        label: name in plots.
        description: one sentence.
        scores: (tracks, 6) float32; the higher, the more likely of the species.
        thresholds: (6,) float64; a track is accepted when score ≥ threshold; NaN accepts nothing.
        probabilistic: whether scores are certainties in [0, 1].
        at: gives, for some tracks, thresholds that differ from track to track, float32 (tracks, 6).
        undefined: species that the method cannot identify → why; it has no figures of merit for them.
    """

    name: str
    label: str
    description: str
    scores: Scores
    thresholds: NDArray[np.float64]
    probabilistic: bool = True
    at: Callable[[slice], NDArray[np.float32]] | None = None
    undefined: Mapping[str, str] = field(default_factory=dict)

    def selected(self, rows: slice) -> NDArray[np.bool_]:
        """Return the decisions on some tracks, shape (tracks, 6)."""
        # Compared in float32, the type of scores and of the networks' outputs.
        limits = self.thresholds.astype(np.float32) if self.at is None else self.at(rows)
        return np.asarray(self.scores[rows] >= limits)


@dataclass(frozen=True)
class Result:
    """What is counted of a method.

    Attributes:
        counts: outcomes by species, pattern and bin.
        auc: (pattern or None, bin or None) → AUC per species, shape (6,).
        curves: per species; without points where the method is undefined.
        reliability: None unless scores are certainties.
        accepted: int64 (classes, 6): tracks of each class accepted as each species.
        chosen: int64 (classes, 6): tracks of each class whose highest certainty is each species', or None.
    """

    method: Method
    counts: SelectionCounts
    auc: dict[tuple[int | None, int | None], NDArray[np.float64]]
    curves: tuple[metrics.Curve, ...]
    reliability: Reliability | None
    accepted: NDArray[np.int64]
    chosen: NDArray[np.int64] | None


def score_table(split: Split, score: Callable[[slice], Scores], scratch: Path) -> Scores:
    """Score a split chunk by chunk into an unnamed file, so that memory does not grow with the sample.

    Args:
        split: the sample.
        score: gives the (tracks, 6) scores of a slice of the split.
        scratch: directory in which the file lies; it vanishes with the array.

    Returns:
        float32 array (tracks, 6).
    """
    shape = (len(split), len(TARGET_PDG))
    if not len(split):
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=scratch) as stream:
        table = np.memmap(stream, np.float32, mode="w+", shape=shape)
    for rows in split.chunks(CHUNK):
        table[rows] = score(rows)
    return table


def groups(sample: Sample, edges: Sequence[float]) -> Groups:
    """Return the rows of each (pattern or None, bin or None); None stands for all, also for tracks outside the bins."""
    bins = bin_index(sample.pt, edges)
    result: Groups = {}
    for pattern in (None, *PATTERNS):
        rows = np.arange(len(bins)) if pattern is None else np.flatnonzero(sample.pattern == pattern)
        result[pattern, None] = rows.astype(np.uint32)
        own = bins[rows]
        for each in range(len(edges) - 1):
            result[pattern, each] = rows[own == each].astype(np.uint32)
    return result


def count(sample: Sample, method: Method, edges: Sequence[float], grouped: Groups) -> Result:
    """Count everything that tables and plots need of one method.

    Args:
        sample: the tracks.
        method: with its scores of these tracks.
        edges: of the bins of transverse momentum, GeV/c.
        grouped: what :func:`groups` gives for the same sample and edges.
    """
    counts, reliability = SelectionCounts(edges), Reliability()
    accepted = np.zeros((len(CLASS_NAMES), len(TARGET_PDG)), np.int64)
    chosen = np.zeros_like(accepted)
    for rows in sample.chunks():
        selected, scores = method.selected(rows), np.asarray(method.scores[rows])
        counts.add(sample.pdg[rows], sample.pattern[rows], sample.pt[rows], selected)
        classes = class_index(sample.pdg[rows])
        for target in range(len(TARGET_PDG)):
            accepted[:, target] += np.bincount(classes[selected[:, target]], minlength=len(CLASS_NAMES))
        if method.probabilistic:
            reliability.add(sample.pdg[rows], scores)
            np.add.at(chosen, (classes, scores.argmax(axis=1)), 1)
    auc, curves = _ranked(sample, method, grouped)
    return Result(
        method, counts, auc, curves, reliability if method.probabilistic else None, accepted,
        chosen if method.probabilistic else None,
    )  # fmt: skip


def _ranked(
    sample: Sample, method: Method, grouped: Groups
) -> tuple[dict[tuple[int | None, int | None], NDArray[np.float64]], tuple[metrics.Curve, ...]]:
    """Return what depends on the order of all scores; one species at a time, to bound the memory."""
    auc = {key: np.full(len(TARGET_PDG), np.nan) for key in grouped}
    curves = []
    for target, pdg in enumerate(TARGET_PDG):
        scores, truth = np.ascontiguousarray(method.scores[:, target]), sample.pdg == pdg
        if TARGET_NAMES[target] in method.undefined:
            curves.append(metrics.curve(truth[:0], scores[:0]))
            continue
        for key, rows in grouped.items():
            auc[key][target] = metrics.auc(truth[rows], scores[rows])
        curves.append(metrics.curve(truth, scores, _CURVE_POINTS))
    return auc, tuple(curves)
