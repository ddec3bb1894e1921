"""The tracks on which a classifier is explained, and what is asked about: features alone, and those of a kind together.

A value that a track lacks says nothing, so nothing is attributed to it. Values are only ever exchanged between tracks
that lack the same ones: a track keeps its missing pattern, whatever else is changed about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.prepared import Split

Matrix = NDArray[np.float32]
_MOMENTUM = ("fP", "fPt", "fPx", "fPy", "fPz")


@dataclass(frozen=True)
class Subject:
    """What an importance is about.

    Attributes:
        name: of the feature, or of the kind of features.
        columns: positions of its features in the matrix.
        is_kind: whether several features are meant together.
    """

    name: str
    columns: tuple[int, ...]
    is_kind: bool


@dataclass(frozen=True)
class Sample:
    """Some tracks of a split.

    Attributes:
        names: feature names.
        rows: int64 (tracks,), their rows in the split, increasing.
        features: float32 (tracks, features), raw units, NaN for missing.
        pdg: int32 (tracks,).
        pt: float32 (tracks,), transverse momentum, GeV/c.
        pattern: uint8 (tracks,), missing patterns.
        alike: groups of tracks that lack the same values: int64 positions in the sample.
    """

    names: tuple[str, ...]
    rows: NDArray[np.int64]
    features: Matrix
    pdg: NDArray[np.int32]
    pt: Matrix
    pattern: NDArray[np.uint8]
    alike: tuple[NDArray[np.int64], ...]

    @classmethod
    def draw(cls, split: Split, names: Sequence[str], size: int, seed: int) -> Sample:
        """Draw at most ``size`` tracks of a split, all equally likely."""
        rows = np.random.default_rng(seed).choice(len(split), min(size, len(split)), replace=False)
        return cls.of(np.sort(rows), split, names)

    @classmethod
    def of(cls, rows: NDArray[np.int64], split: Split, names: Sequence[str]) -> Sample:
        """Read the tracks in the given rows of a split."""
        features = np.array(split.features[rows], np.float32)
        _, group = np.unique(np.isnan(features), axis=0, return_inverse=True)
        alike = tuple(np.flatnonzero(group == number) for number in range(int(group.max(initial=-1)) + 1))
        pdg, pt = np.array(split.pdg[rows]), np.array(split.column("fPt")[rows])
        return cls(tuple(names), rows, features, pdg, pt, tracks.feature_pattern(features, names), alike)

    def __len__(self) -> int:
        return len(self.rows)

    def there(self, group: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the columns of the values that the tracks of a group have."""
        return np.flatnonzero(~np.isnan(self.features[group[0]]))

    def subjects(self) -> tuple[Subject, ...]:
        """Return the features, then the kinds that have several: momentum, and the detectors."""
        alone = [Subject(name, (index,), is_kind=False) for index, name in enumerate(self.names)]
        kinds: dict[str, list[int]] = {kind: [] for kind in ("momentum", "TPC", "TOF", "TRD")}
        for index, name in enumerate(self.names):
            kind = "momentum" if name in _MOMENTUM else tracks.COLUMNS[name].detector
            if kind in kinds:
                kinds[kind].append(index)
        together = [Subject(name, tuple(own), is_kind=True) for name, own in kinds.items() if len(own) > 1]
        return (*alone, *together)
