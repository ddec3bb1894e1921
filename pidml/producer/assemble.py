"""From the raw tables of a ``DF_`` directory to the rows of ``O2pidtracksmcml`` or ``O2pidtracksdataml``.

Tracks are propagated to their collision's vertex along exact helices; energy loss and scattering between the innermost
update and the vertex, which O2 corrects for with the material budget of the experiment, are left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml import helix
from pidml import tracks as track_table
from pidml.producer import selection, signals
from pidml.producer.ao2d import Columns, RawFrame

#: ``fTrackType`` of tracks that were propagated to the vertex (``o2::aod::track::TrackTypeEnum``).
_TRACK_AT_VERTEX = 0
_PARAMETERS = ("fX", "fAlpha", "fY", "fZ", "fSnp", "fTgl", "fSigned1Pt")


@dataclass(frozen=True)
class SelectedTracks:
    """Global tracks of a directory.

    Attributes:
        rows: their rows in the raw tables, ascending.
        params: their helices at the point closest to the collision vertex.
        dca_xy: cm, signed.
        dca_z: cm, signed.
    """

    rows: NDArray[np.intp]
    params: helix.TrackParameters
    dca_xy: helix.Array
    dca_z: helix.Array

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.intp]) -> SelectedTracks:
        """Return the tracks at the positions ``index``."""
        params = helix.TrackParameters(*(values[index] for values in self.params))
        return SelectedTracks(self.rows[index], params, self.dca_xy[index], self.dca_z[index])


def select(
    raw: RawFrame, field: float, removed: Counter[str], drawn: NDArray[np.bool_] | None = None
) -> SelectedTracks:
    """Return the global tracks of a directory and count what was removed, by cut.

    Args:
        raw: its tables.
        field: along z, in tesla.
        removed: cut → tracks; is added to.
        drawn: which collisions are kept, shape (collisions,); None keeps all.
    """
    collision = raw.tracks["fIndexCollisions"]
    cuts = [("no_collision", collision >= 0)]
    if raw.has_particle is not None:
        cuts.append(("no_particle", raw.has_particle))
    cuts.append(("bad_values", _possible(raw)))
    if drawn is not None:
        cuts.append(("event_not_drawn", drawn[collision]))
    left = selection.apply([*cuts, *selection.quality(raw)], np.ones(len(raw), bool), removed)
    rows = np.flatnonzero(left)
    params = helix.as_parameters(*(raw.tracks[name][rows] for name in _PARAMETERS))
    vertex = np.column_stack([raw.collisions[name][collision[rows]] for name in ("fPosX", "fPosY", "fPosZ")])
    params, dca_xy, dca_z = helix.propagate_to_vertex(params, vertex, field)
    pt = 1.0 / np.abs(params.signed1pt)
    left = selection.apply(selection.distances(pt, dca_xy, dca_z), np.ones(len(rows), bool), removed)
    return SelectedTracks(rows, params, dca_xy, dca_z).take(np.flatnonzero(left))


def has_tof(columns: Columns) -> NDArray[np.bool_]:
    """Return which tracks were matched to a TOF hit."""
    return np.asarray((columns["fTOFChi2"] >= 0) & (columns["fTOFExpMom"] > 0))


def _possible(raw: RawFrame) -> NDArray[np.bool_]:
    """Return which tracks have parameters that can be, and a TOF hypothesis that exists if they have TOF."""
    columns = raw.tracks
    possible = np.logical_and.reduce([np.isfinite(columns[name]) for name in _PARAMETERS])
    possible &= (np.abs(columns["fSnp"]) <= 1) & (columns["fSigned1Pt"] != 0)
    known = signals.tracking_hypothesis(columns["fFlags"]) < len(signals.HYPOTHESIS_MASS)
    known &= np.isfinite(columns["fTrackTime"]) & np.isfinite(columns["fLength"])
    return np.asarray(possible & (known | ~has_tof(columns)))


def output_columns(simulation: bool) -> tuple[track_table.Column, ...]:
    """Return the columns that are written, in the order of O2Physics."""
    return tuple(c for c in track_table.TRAINING_COLUMNS if simulation or c.name not in track_table.TRUTH_COLUMNS)


def table_of(raw: RawFrame, selected: SelectedTracks) -> Columns:
    """Return the columns of the track table, with the dtypes of O2Physics, in its order."""
    rows, params = selected.rows, selected.params
    columns = {name: values[rows] for name, values in raw.tracks.items()}
    px, py, pz = helix.momentum(params)
    no_trd = columns["fTRDPattern"] == 0
    tof_time, beta = _tof(raw, columns)
    values: Columns = {
        "fTPCSignal": columns["fTPCSignal"],
        "fTRDSignal": np.where(no_trd, np.nan, columns["fTRDSignal"]),
        "fTRDPattern": columns["fTRDPattern"],
        "fTOFSignal": tof_time,
        "fBeta": beta,
        "fP": np.sqrt(px**2 + py**2 + pz**2),
        "fPt": 1.0 / np.abs(params.signed1pt),
        "fPx": px, "fPy": py, "fPz": pz,
        "fSign": np.sign(params.signed1pt),
        "fX": params.x, "fY": params.y, "fZ": params.z, "fAlpha": params.alpha,
        "fTrackType": np.full(len(rows), _TRACK_AT_VERTEX) if raw.at_innermost_update else columns["fTrackType"],
        "fTPCNClsShared": columns["fTPCNClsShared"],
        "fDcaXY": selected.dca_xy, "fDcaZ": selected.dca_z,
    }  # fmt: skip
    if raw.pdg is not None and raw.primary is not None:
        values |= {"fPdgCode": raw.pdg[rows], "fIsPhysicalPrimary": raw.primary[rows]}
    return {column.name: values[column.name].astype(column.dtype) for column in output_columns(raw.pdg is not None)}


def _tof(raw: RawFrame, columns: Columns) -> tuple[helix.Array, helix.Array]:
    """Return TOF signal (ps) and β of tracks, NaN for those without TOF."""
    signal, beta = np.full(len(columns["fX"]), np.nan), np.full(len(columns["fX"]), np.nan)
    there = np.flatnonzero(has_tof(columns))
    time, length, momentum = (
        columns[name][there].astype(np.float64) for name in ("fTrackTime", "fLength", "fTOFExpMom")
    )
    event_time = 1000.0 * raw.collisions["fCollisionTime"][columns["fIndexCollisions"][there]].astype(np.float64)
    signal[there] = signals.tof_signal(time, columns["fFlags"][there], length, momentum)
    beta[there] = signals.beta(signal[there], event_time, length)
    return signal, beta
