"""The raw tables of reconstruction: bunch crossings, collisions, track parameters and what the detectors measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pidml import helix
from pidml.errors import SpecError
from pidml.simulation import rejected, response
from pidml.simulation.generate import SimulatedTracks
from pidml.simulation.rejected import REASON
from pidml.species import by_name

#: Mass hypotheses of the track fit, in the order of their code in the top four bits of ``fFlags``.
_FIT_HYPOTHESES = ("electron", "muon", "pion", "kaon", "proton")
_PION = 2
_TRACK_AT_VERTEX, _TRACK_AT_INNERMOST_UPDATE = 0, 1


@dataclass(frozen=True)
class RawFormat:
    """Which versions of the tables are written.

    Attributes:
        tracks: ``O2track_iu`` (innermost update) or ``O2track`` (at the closest approach).
        extra: ``O2trackextra_002``, ``O2trackextra_001`` or ``O2trackextra``.
        mc_collision: ``O2mccollision_001`` or ``O2mccollision``.
        simulation: write the tables of the simulated truth; without them the file looks like experimental data.
    """

    tracks: str = "O2track_iu"
    extra: str = "O2trackextra_002"
    mc_collision: str = "O2mccollision_001"
    simulation: bool = True

    def __post_init__(self) -> None:
        allowed = {
            "tracks": ("O2track_iu", "O2track"),
            "extra": ("O2trackextra_002", "O2trackextra_001", "O2trackextra"),
            "mc_collision": ("O2mccollision_001", "O2mccollision"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise SpecError(f"{name} is {getattr(self, name)!r}", f"use one of {', '.join(values)}")


def bunch_crossings(rng: Generator, number: int, run: int) -> dict[str, NDArray[Any]]:
    """Return ``O2bc_001``: one bunch crossing per collision, in ascending order."""
    return {
        "fRunNumber": np.full(number, run, np.int32),
        "fGlobalBC": np.cumsum(rng.integers(1, 400, number)).astype(np.uint64),
        "fTriggerMask": np.zeros(number, np.uint64),
        "fInputMask": np.zeros(number, np.uint64),
    }


def collisions(simulated: SimulatedTracks) -> dict[str, NDArray[Any]]:
    """Return ``O2collision_001``; the time of a collision is that with which β is made."""
    number = len(simulated.vertex)
    zero = np.zeros(number, np.float32)
    position = simulated.vertex.astype(np.float32)
    contributors = np.bincount(simulated.truth["collision"], minlength=number)
    return {
        "fIndexBCs": np.arange(number, dtype=np.int32),
        "fPosX": position[:, 0], "fPosY": position[:, 1], "fPosZ": position[:, 2],
        "fCovXX": zero + np.float32(1e-6), "fCovXY": zero, "fCovYY": zero + np.float32(1e-6),
        "fCovXZ": zero, "fCovYZ": zero, "fCovZZ": zero + np.float32(2e-6),
        "fFlags": np.zeros(number, np.uint16), "fChi2": zero + 1,
        "fNumContrib": contributors.astype(np.uint16),
        "fCollisionTime": (simulated.event_time / 1000).astype(np.float32), "fCollisionTimeRes": zero +
        np.float32(0.05),
    }  # fmt: skip


def track_parameters(
    rng: Generator,
    simulated: SimulatedTracks,
    perigee: helix.TrackParameters,
    reasons: NDArray[np.int8],
    form: RawFormat,
) -> dict[str, NDArray[Any]]:
    """Return ``O2track_iu`` or ``O2track``; ``perigee`` holds the tracks at their closest approach."""
    size = len(reasons)
    collision = np.where(reasons == REASON["no_collision"], -1, simulated.truth["collision"])
    kind = _TRACK_AT_VERTEX
    params = perigee
    if form.tracks == "O2track_iu":
        kind = _TRACK_AT_INNERMOST_UPDATE
        params = _innermost_update(rng, perigee, reasons)
    columns: dict[str, NDArray[Any]] = {
        "fIndexCollisions": collision.astype(np.int32),
        "fTrackType": np.full(size, kind, np.uint8),
    }
    names = ("fX", "fAlpha", "fY", "fZ", "fSnp", "fTgl", "fSigned1Pt")
    return columns | {name: values.astype(np.float32) for name, values in zip(names, params, strict=True)}


def _innermost_update(
    rng: Generator, perigee: helix.TrackParameters, reasons: NDArray[np.int8]
) -> helix.TrackParameters:
    """Return the tracks at the first layer that saw them, in the frame of their sector.

    Layers lie at 2.3–4 cm; tracks that pass the axis further out begin there. Tracks without ITS begin in the TPC.
    """
    nearest = np.hypot(perigee.x, perigee.y)
    radius = np.maximum(rng.uniform(2.3, 4.0, len(reasons)), nearest + 0.5)
    no_its = reasons == REASON["no_its"]
    inside_tpc = no_its & (np.abs(perigee.signed1pt) < 4)
    radius[inside_tpc] = 84.0
    outside = helix.propagate_to_radius(perigee, radius, response.FIELD)
    x, y, _ = helix.global_position(outside)
    sector = (np.floor(np.arctan2(y, x) / (np.pi / 9)) + 0.5) * np.pi / 9
    # Very slow tracks can leave their sector's frame backwards; O2 then keeps a frame along the track.
    turned = np.abs(helix.wrap_angle(outside.alpha - sector)) < 1.4
    return helix.rotate(outside, np.where(turned, sector, outside.alpha))


def track_extra(
    rng: Generator, simulated: SimulatedTracks, quality: rejected.Quality, reasons: NDArray[np.int8], form: RawFormat
) -> dict[str, NDArray[Any]]:
    """Return the table ``O2trackextra…`` in the version asked for."""
    truth, columns = simulated.truth, simulated.columns
    size = len(reasons)
    has_tpc, zero = quality.findable > 0, np.zeros(size, np.float32)
    has_trd, has_tof = ~np.isnan(columns["fTRDPattern"]) & has_tpc, ~np.isnan(truth["tof"]) & has_tpc
    time, hypothesis = _track_time(rng, simulated, has_tof)
    its = _its_columns(rng, quality.its_layers, form)
    findable = quality.findable.astype(np.int16)
    return {
        "fTPCInnerParam": np.where(has_tpc, truth["p"], 0).astype(np.float32),
        "fFlags": (hypothesis.astype(np.uint32) << np.uint32(28)) | np.uint32(1),
        **its,
        "fTPCNClsFindable": quality.findable,
        "fTPCNClsFindableMinusFound": (findable - quality.found).astype(np.int8),
        "fTPCNClsFindableMinusCrossedRows": (findable - quality.crossed).astype(np.int8),
        "fTPCNClsShared": np.where(has_tpc, columns["fTPCNClsShared"], 0).astype(np.uint8),
        "fTRDPattern": np.where(has_trd, np.nan_to_num(columns["fTRDPattern"]), 0).astype(np.uint8),
        "fITSChi2NCl": quality.its_chi2, "fTPCChi2NCl": quality.tpc_chi2,
        "fTRDChi2": np.where(has_trd, np.float32(1), np.float32(-1)),
        "fTOFChi2": np.where(has_tof, rng.exponential(2.0, size), -1).astype(np.float32),
        "fTPCSignal": np.where(has_tpc, columns["fTPCSignal"], 0).astype(np.float32),
        "fTRDSignal": np.where(has_trd, columns["fTRDSignal"], 0).astype(np.float32),
        "fLength": np.where(has_tof, truth["length"], 0).astype(np.float32),
        "fTOFExpMom": np.where(has_tof, truth["p"], 0).astype(np.float32),
        "fTrackEtaEMCAL": zero - 999, "fTrackPhiEMCAL": zero - 999,
        "fTrackTime": time.astype(np.float32), "fTrackTimeRes": np.where(has_tof, np.float32(0.2), np.float32(100)),
    }  # fmt: skip


def _track_time(
    rng: Generator, simulated: SimulatedTracks, has_tof: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the time (ns) of the tracks, TOF signal minus expected time, and the mass hypothesis it was made with.

    Most fits assume pions; some that the TPC tells to be something else use that mass.
    """
    truth = simulated.truth
    kind = np.array([2, 3, 4, 2, 3, 4, 0, 0, 1, 1])[truth["species"]]
    hypothesis = np.where(rng.random(len(kind)) < 0.6, kind, _PION)
    # The table stores length and momentum as float32: the expected time is that of the stored values.
    length, p = truth["length"].astype(np.float32).astype(np.float64), truth["p"].astype(np.float32).astype(np.float64)
    mass = np.array([by_name(name).mass for name in _FIT_HYPOTHESES])[hypothesis]
    event_time = simulated.event_time[truth["collision"]]
    time = np.where(has_tof, truth["tof"] - response.flight_time(length, p, mass), event_time)
    return time / 1000, hypothesis


def _its_columns(rng: Generator, layers: NDArray[np.uint8], form: RawFormat) -> dict[str, NDArray[Any]]:
    """Return the ITS columns of the table's version: a map of layers, or four bits of cluster size per layer."""
    if form.extra == "O2trackextra":
        return {"fITSClusterMap": layers}
    sizes = np.zeros(len(layers), np.uint32)
    for layer in range(7):
        size = rng.integers(1, 8, len(layers), dtype=np.uint32)
        sizes |= np.where(layers >> layer & 1, size << np.uint32(4 * layer), np.uint32(0))
    return {"fITSClusterSizes": sizes}
