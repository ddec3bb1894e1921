"""Prepared data as it lies on disk, read through memory maps.

A prepared dataset is a directory with ``meta.json``, ``scaling.json`` and, per split, a folder of three arrays.
Features are stored raw (physical units), NaN where missing, with the momentum limits applied; standardisation happens
on loading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.survey import Survey
from pidml.errors import CorruptFile

SPLITS = ("train", "validation", "test")
#: Columns kept beside the features for selection, binning and baselines, where the input has them.
AUX_COLUMNS: tuple[str, ...] = (
    *("fP", "fPt", "fEta", "fSign", "fIsPhysicalPrimary", "fTPCSignal", "fTRDPattern", "fTOFSignal", "fBeta"),
    *(f"f{detector}NSigma{hypothesis}" for detector in ("TPC", "TOF") for hypothesis in tracks.HYPOTHESES),
)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation per feature; (0, 1) for features that enter raw.

    Attributes:
        names: feature names, in order.
        mean, std: float32 arrays of shape (features,).
        standardised: names of the features that are scaled.
    """

    names: tuple[str, ...]
    mean: Array
    std: Array
    standardised: tuple[str, ...]

    def apply(self, features: Array) -> Array:
        """Return ``(x − mean) / std`` as a new float32 array of shape ``(tracks, features)``; NaN stays NaN."""
        return (features - self.mean) / self.std

    def as_o2(self) -> dict[str, list[list[str | float]]]:
        """Return the content of ``scaling_params.json`` as ``PidONNXModel`` reads it."""
        index = {name: position for position, name in enumerate(self.names)}
        return {"data": [[n, float(self.mean[index[n]]), float(self.std[index[n]])] for n in self.standardised]}

    @classmethod
    def from_o2(cls, names: Sequence[str], content: Mapping[str, Any]) -> Scaling:
        """Make a scaling of the feature names and the content of a ``scaling_params.json``."""
        mean, std = np.zeros(len(names), np.float32), np.ones(len(names), np.float32)
        for name, centre, width in content["data"]:
            position = list(names).index(name)
            mean[position], std[position] = centre, width
        return cls(tuple(names), mean, std, tuple(name for name, _, _ in content["data"]))


def rows_of(array: NDArray[Any], rows: slice) -> NDArray[Any]:
    """Return rows of an array; those of a memory map are read from its file, so that the map does not become resident.

    Args:
        array: as :class:`Split` holds it, whole; its first axis is that of the tracks.
        rows: start and stop, without step.
    """
    start, stop, _ = rows.indices(len(array))
    if not isinstance(array, np.memmap) or array.filename is None or not array.flags.c_contiguous:
        return np.asarray(array[start:stop])
    shape = (max(0, stop - start), *array.shape[1:])
    width = int(np.prod(shape[1:]))
    values = np.fromfile(
        array.filename, array.dtype, shape[0] * width, offset=array.offset + start * width * array.itemsize
    )
    return values.reshape(shape)


@dataclass(frozen=True)
class Split:
    """One of the three samples; the arrays are read-only memory maps.

    Attributes:
        features: (tracks, features) float32, raw units, NaN = missing.
        pdg: (tracks,) int32, PDG code; 0 throughout for experimental data.
        aux: (tracks, aux columns) float32; TOF and TRD values here are *not* subject to the momentum limits.
        aux_names: names of the columns of ``aux``.
        note: what is particular about the sample, for messages.
    """

    name: str
    features: Array
    pdg: NDArray[np.int32]
    aux: Array
    aux_names: tuple[str, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.pdg)

    @property
    def title(self) -> str:
        """What messages call the sample."""
        return f"{self.name} sample" + (f" ({self.note})" if self.note else "")

    def column(self, name: str) -> Array:
        """Return the aux column ``name``, shape (tracks,); KeyError if the input did not have it."""
        if name not in self.aux_names:
            raise KeyError(name)
        return self.aux[:, self.aux_names.index(name)]

    def chunks(self, size: int = 1_000_000) -> Iterator[slice]:
        """Yield slices that cover the sample in order, ``size`` tracks at a time."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset on disk.

    Attributes:
        path: its directory.
        meta: content of ``meta.json``: features, aux, simulation, seed, momentum_limits, counts.
        labelled: names of the samples in which a network's species must occur for it to be trained.
    """

    labelled: ClassVar[tuple[str, ...]] = ("train", "validation")

    path: Path
    meta: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> PreparedDataset:
        """Open the dataset at ``path``.

        Raises:
            CorruptFile: ``meta.json`` is absent or damaged.
        """
        path = Path(path)
        try:
            return cls(path, json.loads((path / "meta.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise CorruptFile(
                f"{path}: no prepared dataset: {error}", "remove the directory and rerun PrepareDataset"
            ) from error

    @property
    def features(self) -> tuple[str, ...]:
        """Feature names, in the order of the matrix columns."""
        return tuple(self.meta["features"])

    @property
    def simulation(self) -> bool:
        """Whether the tracks are simulated and so have labels."""
        return bool(self.meta["simulation"])

    @cached_property
    def scaling(self) -> Scaling:
        """The scaling measured on the training sample."""
        return Scaling.from_o2(self.features, json.loads((self.path / "scaling.json").read_text(encoding="utf-8")))

    def survey(self, name: str) -> Survey:
        """Return what values the sample ``name`` holds: as preparation found it, or by reading it in chunks."""
        if name in (known := self.meta.get("surveys", {})):
            return Survey.from_json(known[name])
        sample, result = self.split(name), Survey.zero(self.features)
        for rows in sample.chunks():
            result = result + Survey.of(rows_of(sample.features, rows), self.features)
        return result

    def split(self, name: str) -> Split:
        """Return the sample called ``name``: train, validation or test."""
        folder = self.path / name
        features, pdg, aux = (np.load(folder / f"{array}.npy", mmap_mode="r") for array in ("features", "pdg", "aux"))
        return Split(name, features, pdg, aux, tuple(self.meta["aux"]))
