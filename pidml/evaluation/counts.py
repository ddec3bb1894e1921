"""Additive counts of selected and true tracks, from which every metric follows.

Counts of chunks, files or machines add up, so that a sample of any size is judged in bounded memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml import species, tracks

PATTERNS: tuple[int, ...] = tuple(tracks.PATTERN_NAMES)
TARGET_PDG = np.array([target.pdg for target in species.TARGETS], np.int32)
#: Rows of a confusion matrix: every species known by name, then everything else.
CLASS_NAMES: tuple[str, ...] = (*(each.name for each in species.ALL), "other")

Counts = NDArray[np.int64]


def truth_matrix(pdg: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return, per track and target species, whether the track is of that species; shape (tracks, 6)."""
    return np.asarray(np.asarray(pdg)[:, None] == TARGET_PDG)


def class_index(pdg: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return each track's position in :data:`CLASS_NAMES`; shape (tracks,)."""
    result = np.full(len(pdg), len(CLASS_NAMES) - 1, np.int64)
    for position, each in enumerate(species.ALL):
        result[np.asarray(pdg) == each.pdg] = position
    return result


def bin_index(values: NDArray[np.float32], edges: Sequence[float]) -> NDArray[np.int64]:
    """Return each value's bin: lower edge included, upper excluded; ``len(edges) − 1`` for values in no bin or NaN."""
    bins = len(edges) - 1
    index = np.searchsorted(np.asarray(edges, np.float64), np.asarray(values, np.float64), side="right") - 1
    return np.where((index < 0) | (index >= bins), bins, index)


@dataclass(frozen=True)
class Outcome:
    """Counts of a selection's outcomes; the four arrays have one shape.

    Attributes:
        tp: signal, selected.
        fp: not signal, selected.
        fn: signal, not selected.
        tn: not signal, not selected.
    """

    tp: Counts
    fp: Counts
    fn: Counts
    tn: Counts


class SelectionCounts:
    """Counts of one selection by target species, missing pattern, bin of transverse momentum, truth and decision.

    Args:
        edges: edges of the bins, GeV/c; tracks outside count in the totals only.

    Attributes:
        values: int64, shape (6 species, 4 patterns, bins + 1, 2 truth, 2 selected); the last bin is "outside".
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self.values: Counts = np.zeros((len(TARGET_PDG), len(PATTERNS), len(self.edges), 2, 2), np.int64)

    def add(
        self,
        pdg: NDArray[np.int32],
        pattern: NDArray[np.uint8],
        pt: NDArray[np.float32],
        selected: NDArray[np.bool_],
    ) -> None:
        """Count a chunk of tracks.

        Args:
            pdg: PDG codes, shape (tracks,).
            pattern: missing patterns, shape (tracks,).
            pt: transverse momenta, GeV/c, shape (tracks,).
            selected: decision per target species, shape (tracks, 6).
        """
        cell = (np.asarray(pattern, np.int64) * len(self.edges) + bin_index(pt, self.edges)) * 4
        truth = truth_matrix(pdg)
        shape = self.values.shape[1:]
        for target in range(len(TARGET_PDG)):
            index = cell + 2 * truth[:, target] + selected[:, target]
            self.values[target] += np.bincount(index, minlength=int(np.prod(shape))).reshape(shape)

    def __add__(self, other: SelectionCounts) -> SelectionCounts:
        """Return the counts of both samples together; ValueError if their bins differ."""
        if self.edges != other.edges:
            raise ValueError("counts with different bins cannot be added")
        total = SelectionCounts(self.edges)
        total.values = self.values + other.values
        return total

    def outcome(self, target: int, pattern: int | None = None) -> Outcome:
        """Return the outcomes for one target species, shape (bins + 1,): the bins, then tracks outside them.

        Args:
            target: position in ``species.TARGETS``.
            pattern: a missing pattern, or None for all.
        """
        values = self.values[target]
        table = values.sum(axis=0) if pattern is None else values[PATTERNS.index(pattern)]
        return Outcome(tp=table[:, 1, 1], fp=table[:, 0, 1], fn=table[:, 1, 0], tn=table[:, 0, 0])

    def total(self, target: int, pattern: int | None = None) -> Outcome:
        """Return the outcomes for one target species summed over all momenta; arrays of shape (1,)."""
        each = self.outcome(target, pattern)
        return Outcome(*(np.array([part.sum()]) for part in (each.tp, each.fp, each.fn, each.tn)))
