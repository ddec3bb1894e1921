"""Writes simulated tracks as track tables, exactly as the producer in O2Physics would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from pidml.atomic import atomic_file
from pidml.errors import SpecError
from pidml.simulation import metadata as root_metadata
from pidml.simulation import response
from pidml.simulation.distortion import Distortion
from pidml.simulation.generate import SimulatedTracks, generate_tracks, generator
from pidml.species import by_name
from pidml.tracks import FULL_COLUMNS, TRAINING_COLUMNS, TREES, TRUTH_COLUMNS, Column

#: Tracks simulated and written at a time: memory does not grow with the file.
CHUNK = 100_000
_OLD_MISSING = np.float32(-999.0)
_MASSES = {"El": "electron", "Mu": "muon", "Pi": "pion", "Ka": "kaon", "Pr": "proton"}


@dataclass(frozen=True)
class TableFormat:
    """How a track table is written.

    Attributes:
        tree: one of :data:`pidml.tracks.TREES`.
        old_missing: write −999 for missing TOF, as older files have it, instead of NaN.
        old_names: use the older spelling ``fTPCExpSignalDiff…`` of the full tables.
        metadata: add a key ``metaData`` beside the tables, which readers must skip.
    """

    tree: str = "O2pidtracksmcml"
    old_missing: bool = False
    old_names: bool = False
    metadata: bool = True

    def __post_init__(self) -> None:
        if self.tree not in TREES:
            raise SpecError(f"no track table is called {self.tree!r}", f"use one of {', '.join(TREES)}")

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the tree, in the order of O2Physics."""
        simulation, full = TREES[self.tree]
        columns = FULL_COLUMNS if full else TRAINING_COLUMNS
        return columns if simulation else tuple(c for c in columns if c.name not in TRUTH_COLUMNS)

    def spelling(self, name: str) -> str:
        """Return a column's name in the file."""
        return name.replace("fTpcExpSignalDiff", "fTPCExpSignalDiff") if self.old_names else name


def split_evenly(total: int, parts: int) -> list[int]:
    """Return ``parts`` numbers that differ by at most 1 and add up to ``total``.

    >>> split_evenly(10, 3)
    [4, 3, 3]
    """
    return [total // parts + (index < total % parts) for index in range(parts)]


def write_track_table(
    path: Path | str,
    tracks: int,
    seed: int | SeedSequence,
    *,
    frames: int = 3,
    form: TableFormat | None = None,
    first_frame: int = 1,
    distortion: Distortion | None = None,
) -> None:
    """Simulate ``tracks`` selected tracks into ``frames`` directories ``DF_<n>`` of one ROOT file, atomically.

    Memory stays bounded whatever the number of tracks. A file of distorted tracks does not carry the mark of known
    likelihood.

    Raises:
        DiskFull: no space is left.
        StoreError: the place is not writable.
    """
    form = form or TableFormat()
    sequence = seed if isinstance(seed, SeedSequence) else SeedSequence(seed)
    seeds = sequence.spawn(frames)
    with (
        atomic_file(path) as temporary,
        uproot.recreate(temporary, compression=uproot.ZSTD(1)) as file,
    ):
        if form.metadata and distortion is None:
            file[root_metadata.KEY] = root_metadata.TEXT
        for index, (share, frame_seed) in enumerate(zip(split_evenly(tracks, frames), seeds, strict=True)):
            _write_frame(file, f"DF_{first_frame + index}/{form.tree}", share, generator(frame_seed), form, distortion)


def _write_frame(
    file: Any, name: str, tracks: int, rng: Generator, form: TableFormat, distortion: Distortion | None
) -> None:
    types = {form.spelling(column.name): np.dtype(column.dtype) for column in form.columns}
    baskets = max(10, -(-tracks // CHUNK))
    tree = file.mktree(name, types, initial_basket_capacity=baskets)
    for start in range(0, tracks, CHUNK):
        tree.extend(table_columns(generate_tracks(min(CHUNK, tracks - start), rng, distortion), form))


def table_columns(simulated: SimulatedTracks, form: TableFormat) -> dict[str, NDArray[Any]]:
    """Return the columns of a track table with names, dtypes and encodings of missing values as on disk."""
    values = dict(simulated.columns)
    if TREES[form.tree][1]:
        values |= multiplicities(simulated) | sigmas(simulated)
    if form.old_missing:
        for name in ("fTOFSignal", "fBeta"):
            values[name] = np.where(np.isnan(values[name]), _OLD_MISSING, values[name])
    values["fTRDPattern"] = np.nan_to_num(values["fTRDPattern"])
    return {form.spelling(c.name): values[c.name].astype(c.dtype, copy=False) for c in form.columns}


def sigmas(simulated: SimulatedTracks) -> dict[str, NDArray[np.float32]]:
    """Return expected resolutions, differences and numbers of sigma of TPC and TOF for the five hypotheses.

    ``fTOFNSigma…`` is −999 without TOF, as O2Physics has it; the other TOF columns are NaN there.
    """
    truth, columns = simulated.truth, simulated.columns
    p, length = truth["p"], truth["length"]
    resolution = response.tpc_relative_resolution(truth["clusters"])
    flight, tof_width = length / (response.LIGHT * truth["beta"]), response.tof_resolution(p)
    result: dict[str, NDArray[Any]] = {}
    for hypothesis, name in _MASSES.items():
        mass = np.array(by_name(name).mass)
        expected = response.tpc_expected(p, mass)
        difference, late = columns["fTPCSignal"] - expected, flight - response.flight_time(length, p, mass)
        result[f"fTPCExpSigma{hypothesis}"] = resolution * expected
        result[f"fTpcExpSignalDiff{hypothesis}"] = difference
        result[f"fTPCNSigma{hypothesis}"] = difference / (resolution * expected)
        result[f"fTOFExpSigma{hypothesis}"] = np.where(np.isnan(late), np.nan, tof_width)
        result[f"fTofExpSignalDiff{hypothesis}"] = late
        result[f"fTOFNSigma{hypothesis}"] = np.where(np.isnan(late), _OLD_MISSING, late / tof_width)
    return {name: values.astype(np.float32) for name, values in result.items()}


#: Multiplicity estimator → counts per selected track of the collision.
_COUNTS = {
    "fMultFV0A": 18.0, "fMultFV0C": 0.0, "fMultFT0A": 22.0, "fMultFT0C": 11.0, "fMultZNA": 0.3, "fMultZNC": 0.3,
    "fMultTracklets": 1.4, "fMultTPC": 1.7,
}  # fmt: skip


def multiplicities(simulated: SimulatedTracks) -> dict[str, NDArray[np.float32]]:
    """Return the multiplicity and EMCAL columns; they are the same for all species and not part of the likelihood."""
    collision, size = simulated.truth["collision"], len(simulated.truth["collision"])
    selected = np.bincount(collision)[collision].astype(np.float32)
    result = {name: np.float32(factor) * selected for name, factor in _COUNTS.items()}
    result["fMultFV0M"] = result["fMultFV0A"] + result["fMultFV0C"]
    result["fMultFT0M"] = result["fMultFT0A"] + result["fMultFT0C"]
    outside = np.full(size, _OLD_MISSING)
    return result | {"fTrackEtaEMCAL": outside, "fTrackPhiEMCAL": outside.copy()}
