"""Feature importance as plain data: flat tables, and the record that plots and the report are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pidml.explanation.permutation import FIGURES, SELECTIONS, PermutationImportance
from pidml.explanation.sample import Matrix, Sample, Subject
from pidml.tracks import PATTERN_NAMES


def selection_name(pattern: int | None) -> str:
    """Return the name of a selection of tracks in tables: ``all``, or that of the missing pattern."""
    return "all" if pattern is None else PATTERN_NAMES[pattern]


def permutation_table(
    found: PermutationImportance, subjects: Sequence[Subject], species: Sequence[str]
) -> pd.DataFrame:
    """Return one row per species, selection, subject and figure of merit; undefined ones are left out.

    Columns: ``species``, ``selection``, ``subject``, ``is_kind``, ``figure``, ``baseline`` (the figure as it is),
    ``importance`` (how much worse it becomes), ``error``.
    """
    rows = []
    for s, name in enumerate(species):
        for p, pattern in enumerate(SELECTIONS):
            for i, subject in enumerate(subjects):
                for f, figure in enumerate(FIGURES):
                    if np.isfinite(found.value[i, f, p, s]):
                        rows.append({"species": name, "selection": selection_name(pattern), "subject": subject.name,
                                     "is_kind": subject.is_kind, "figure": figure,
                                     "baseline": found.baseline[f, p, s], "importance": found.value[i, f, p, s],
                                     "error": found.error[i, f, p, s]})  # fmt: skip
    return pd.DataFrame(rows)


def shapley_table(values: Matrix, sample: Sample, subjects: Sequence[Subject], species: Sequence[str]) -> pd.DataFrame:
    """Return one row per species, selection and subject; those without tracks that have the values are left out.

    Columns: ``species``, ``selection``, ``subject``, ``is_kind``, ``tracks`` (that have the values), ``mean_abs`` (mean
    of the absolute Shapley value, of the sum for kinds), ``error`` (standard error of that mean over the tracks).
    """
    selections = [np.arange(len(sample)) if p is None else np.flatnonzero(sample.pattern == p) for p in SELECTIONS]
    rows = []
    for s, name in enumerate(species):
        own = np.asarray(values[:, s])  # of a memory map: one species at a time
        for p, pattern in enumerate(SELECTIONS):
            for subject in subjects:
                size = _size(own[np.ix_(selections[p], np.array(subject.columns))])
                if len(size):
                    error = size.std(ddof=1) / np.sqrt(len(size)) if len(size) > 1 else np.nan
                    rows.append({"species": name, "selection": selection_name(pattern), "subject": subject.name,
                                 "is_kind": subject.is_kind, "tracks": len(size), "mean_abs": size.mean(),
                                 "error": error})  # fmt: skip
    return pd.DataFrame(rows)


def _size(values: Matrix) -> NDArray[np.float64]:
    """Return the absolute sums of the values of tracks that have any, float64."""
    there = ~np.isnan(values).all(axis=1)
    return np.asarray(np.abs(np.nansum(values[there], axis=1, dtype=np.float64)))
