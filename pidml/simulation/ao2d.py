"""Writes simulated tracks as AO2D files: the raw tables from which a producer makes track tables.

Every track is drawn at its closest approach to the vertex and followed outwards to its innermost update (2.3–4 cm,
tracks without ITS 84 cm) in float64; there its parameters are stored, in the frame of its sector. A closed-loop test
compares what a producer makes of the raw tables with :attr:`Frame.expected`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from pidml import helix
from pidml.atomic import atomic_file
from pidml.simulation import metadata, rejected
from pidml.simulation.distortion import Distortion
from pidml.simulation.generate import SimulatedTracks, generate_tracks, generator
from pidml.simulation.raw_tables import RawFormat, bunch_crossings, collisions, track_extra, track_parameters
from pidml.simulation.track_tables import split_evenly
from pidml.simulation.truth_tables import Tables, truth_tables


@dataclass
class Frame:
    """One ``DF_`` directory.

    Attributes:
        tables: tree name → column name → array.
        reasons: per track, index into :data:`pidml.simulation.rejected.REASONS`; 0 for tracks that are selected.
        expected: what a faultless producer makes of the selected tracks, in their order: float64 columns ``fPx``,
        ``fPy``,
            ``fPz``, ``fDcaXY``, ``fDcaZ``, ``fAlpha``, ``fX``, ``fY``, ``fZ``, ``fBeta``, ``fTOFSignal`` (NaN for
            missing), and float32 or integer ``fTPCSignal``, ``fTRDSignal``, ``fTRDPattern``, ``fSign``,
            ``fTPCNClsShared``, ``fPdgCode``, ``fIsPhysicalPrimary``.
    """

    tables: Tables
    reasons: NDArray[np.int8]
    expected: dict[str, NDArray[Any]] = field(default_factory=dict)


def write_ao2d(
    path: Path | str,
    tracks: int,
    seed: int | SeedSequence,
    *,
    frames: int = 3,
    form: RawFormat | None = None,
    first_frame: int = 1,
    run: int = 0,
    keep_frames: bool = False,
    distortion: Distortion | None = None,
) -> list[Frame]:
    """Simulate an AO2D file atomically that holds exactly ``tracks`` tracks which pass the global-track selection.

    Another 59 % are there to be dropped (:data:`pidml.simulation.rejected.REASONS`). Of these, tracks without a
    particle would be kept in experimental data. Memory grows with the tracks per frame, not per file.

    Args:
        path: the file.
        tracks: selected tracks of the file.
        seed: equal seeds give equal tables.
        frames: directories ``DF_<n>``.
        form: versions of the tables.
        first_frame: number of the first directory.
        run: run number in the table of bunch crossings.
        keep_frames: return the frames (for closed-loop tests) instead of an empty list.
        distortion: of the response; the file then does not carry the mark of known likelihood.

    Raises:
        DiskFull: no space is left.
        StoreError: the place is not writable.
    """
    form = form or RawFormat()
    seeds = (seed if isinstance(seed, SeedSequence) else SeedSequence(seed)).spawn(frames)
    kept = []
    with (
        atomic_file(path) as temporary,
        uproot.recreate(temporary, compression=uproot.ZSTD(1)) as file,
    ):
        if distortion is None:
            file[metadata.KEY] = metadata.TEXT
        for index, (share, frame_seed) in enumerate(zip(split_evenly(tracks, frames), seeds, strict=True)):
            frame = simulate_frame(share, generator(frame_seed), form, run, distortion)
            for name, columns in frame.tables.items():
                _write_table(file, f"DF_{first_frame + index}/{name}", columns)
            if keep_frames:
                kept.append(frame)
    return kept


def _write_table(file: Any, name: str, columns: dict[str, Any]) -> None:
    types = {
        key: "var * int32" if isinstance(values, ak.Array) else np.dtype((values.dtype, values.shape[1:]))
        for key, values in columns.items()
    }
    file.mktree(name, types, counter_name=lambda counted: f"{counted}_size").extend(columns)


def simulate_frame(
    tracks: int, rng: Generator, form: RawFormat | None = None, run: int = 0, distortion: Distortion | None = None
) -> Frame:
    """Simulate the tables of one ``DF_`` directory with ``tracks`` selected tracks."""
    form = form or RawFormat()
    reasons = rejected.draw_reasons(rng, tracks)
    simulated = generate_tracks(len(reasons), rng, distortion)
    rejected.displace(rng, simulated, reasons)
    quality = rejected.quality(rng, simulated.truth["clusters"], reasons)
    perigee = _at_vertex(simulated)
    tables: Tables = {"O2bc_001": bunch_crossings(rng, len(simulated.vertex), run)}
    tables["O2collision_001"] = collisions(simulated)
    tables[form.tracks] = track_parameters(rng, simulated, perigee, reasons, form)
    tables[form.extra] = track_extra(rng, simulated, quality, reasons, form)
    if form.simulation:
        tables |= truth_tables(rng, simulated, perigee, reasons, form)
    return Frame(tables, reasons, _expected(simulated, perigee, reasons))


def _at_vertex(simulated: SimulatedTracks) -> helix.TrackParameters:
    """Return the tracks at their closest approach, in float64."""
    truth = simulated.truth
    cos, sin = np.cos(truth["phi"]), np.sin(truth["phi"])
    vx, vy, vz = simulated.vertex[truth["collision"]].T
    zero = np.zeros_like(cos)
    return helix.TrackParameters(
        vx * cos + vy * sin, truth["phi"], vy * cos - vx * sin + truth["dca_xy"], vz + truth["dca_z"], zero,
        np.sinh(truth["eta"]), truth["sign"] / truth["pt"],
    )  # fmt: skip


def _expected(
    simulated: SimulatedTracks, perigee: helix.TrackParameters, reasons: NDArray[np.int8]
) -> dict[str, NDArray[Any]]:
    """Return what a faultless producer makes of the selected tracks; see :class:`Frame`."""
    truth, columns = simulated.truth, simulated.columns
    px, py, pz = helix.momentum(perigee)
    precise = {
        "fPx": px, "fPy": py, "fPz": pz, "fDcaXY": truth["dca_xy"], "fDcaZ": truth["dca_z"],
        "fAlpha": perigee.alpha, "fX": perigee.x, "fY": perigee.y, "fZ": perigee.z,
        "fBeta": truth["beta"], "fTOFSignal": truth["tof"],
    }  # fmt: skip
    copied = ("fTPCSignal", "fTRDSignal", "fTRDPattern", "fSign", "fTPCNClsShared", "fPdgCode", "fIsPhysicalPrimary")
    selected = np.flatnonzero(reasons == 0)
    return {name: values[selected] for name, values in (precise | {name: columns[name] for name in copied}).items()}
