"""The models that are compared, and whether comparing them on the same tracks is fair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pidml.comparison.fairness import HINT, division, remedy, unlike_features, unlike_tracks
from pidml.data.prepared import PreparedDataset, Split
from pidml.errors import UnfairComparison
from pidml.evaluation.labelled import labelled_test
from pidml.spec import JobSpec


@dataclass(frozen=True)
class Contestant:
    """A trained job.

    Attributes:
        name: for tables and plots; unlike any other's.
        job: its specification.
        prepared: the data that it was trained on.
        trained: outputs of its Train.
        bundle: output of its ExportModel.
        response: output of its TrainTPCResponse, if it derives features.
    """

    name: str
    job: JobSpec
    prepared: PreparedDataset
    trained: tuple[Path, ...]
    bundle: Path
    response: Path | None = None


@dataclass(frozen=True)
class Entrant:
    """What a model is judged on: the common test tracks, as it sees them.

    Attributes:
        split: the test tracks, in the order of all others'.
        columns: positions of the model's features among those of the split.
        reason: why that is fair, one sentence.
    """

    split: Split
    columns: tuple[int, ...]
    reason: str

    def features(self, rows: slice) -> NDArray[np.float32]:
        """Return the model's features of some tracks, float32 (tracks, features)."""
        return np.asarray(self.split.features[rows])[:, self.columns]


def entrants(contestants: Sequence[Contestant]) -> list[Entrant]:
    """Return what each model is judged on: the first one's test tracks.

    A model whose own test sample holds the same tracks is judged on that, with its own features. Another is judged on
    the first one's data, which must be prepared alike and hold none of the tracks that it was trained on.

    Raises:
        UnfairComparison: a model was trained on test tracks, or on data too different for a comparison to say anything.
        NoLabels: the first job's data are experimental.
        MissingColumn: they have no transverse momentum.
        NoTracks: its test sample is empty.
    """
    first = contestants[0]
    test = labelled_test(first.prepared)
    return [_entrant(first, test, each) for each in contestants]


def _entrant(first: Contestant, test: Split, other: Contestant) -> Entrant:
    own = other.prepared
    everything = tuple(range(len(own.features)))
    if own.path == first.prepared.path:
        return Entrant(test, everything, "the same prepared data")
    own_test = own.split("test")
    if same_tracks(test, own_test):
        return Entrant(own_test, everything, "a test sample of the same tracks, with features of its own")
    _check_alike(first, other)
    if shared := _trained_on(own, test):
        raise UnfairComparison(
            f"{other.name} is trained on {shared:,} of the {len(test):,} test tracks of {first.name}"
            f"{division(first.job, other.job)}",
            remedy(first.job, other.job, other.name),
        )
    columns = tuple(first.prepared.features.index(name) for name in own.features)
    return Entrant(test, columns, f"the test tracks of {first.name}, none of which it was trained on")


def _check_alike(first: Contestant, other: Contestant) -> None:
    """Refuse a model that cannot be judged on the first one's data."""
    problems = unlike_tracks(first.job, other.job)
    same_limits = first.prepared.meta["momentum_limits"] == other.prepared.meta["momentum_limits"]
    problems += unlike_features(first.name, same_limits, first.prepared.features, other.prepared.features)
    if other.prepared.simulation != first.prepared.simulation:
        problems.append("one was trained on simulation, the other on experimental data")
    if problems:
        raise UnfairComparison(
            f"{other.name} and {first.name} have different test samples, and {'; '.join(problems)}", HINT
        )


def same_tracks(first: Split, second: Split) -> bool:
    """Tell whether two samples hold the same tracks in the same order, by label and the columns that both have."""
    shared = [name for name in first.aux_names if name in second.aux_names]
    if len(first) != len(second) or not shared:
        return False
    ours, theirs = ([split.aux_names.index(name) for name in shared] for split in (first, second))
    for rows in first.chunks():
        values, others = np.asarray(first.aux[rows])[:, ours], np.asarray(second.aux[rows])[:, theirs]
        if not (np.array_equal(first.pdg[rows], second.pdg[rows]) and np.array_equal(values, others, equal_nan=True)):
            return False
    return True


def _trained_on(prepared: PreparedDataset, test: Split) -> int:
    """Return how many of the test tracks are among those that a model was trained or validated on."""
    samples = [prepared.split("train"), prepared.split("validation")]
    shared = [name for name in test.aux_names if name in samples[0].aux_names]
    known = np.concatenate([_fingerprints(test, rows, shared) for rows in test.chunks()])
    found = np.zeros(len(known), bool)
    for sample in samples:
        for rows in sample.chunks():
            found |= np.isin(known, _fingerprints(sample, rows, shared))
    return int(np.count_nonzero(found))


def _fingerprints(split: Split, rows: slice, names: Sequence[str]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of the label and the named columns of each track."""
    columns = [split.aux_names.index(name) for name in names]
    frame = pd.DataFrame(np.asarray(split.aux[rows])[:, columns]).assign(pdg=np.asarray(split.pdg[rows]))
    return np.asarray(pd.util.hash_pandas_object(frame, index=False), np.uint64)
