"""The raw tables of the simulated truth: labels of tracks, particles and simulated collisions."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pidml import helix
from pidml.simulation import mixture
from pidml.simulation.generate import SimulatedTracks
from pidml.simulation.raw_tables import RawFormat
from pidml.simulation.rejected import REASON

#: Tree → column → array; lists of varying length are awkward arrays.
Tables = dict[str, dict[str, Any]]
#: ``fFlags`` of particles: made by the transport code (bit 0), physical primary (bit 2).
_TRANSPORTED, _PRIMARY = 0x1, 0x4


def truth_tables(
    rng: Generator,
    simulated: SimulatedTracks,
    perigee: helix.TrackParameters,
    reasons: NDArray[np.int8],
    form: RawFormat,
) -> Tables:
    """Return labels, particles and simulated collisions; particles that left no track come after those that did."""
    truth, number = simulated.truth, len(simulated.vertex)
    labelled = reasons != REASON["no_particle"]
    rows = np.flatnonzero(labelled)
    source = np.concatenate([rows, rng.integers(0, len(reasons), len(reasons) // 4)])
    turn = np.zeros(len(source))
    turn[len(rows) :] = rng.uniform(-np.pi, np.pi, len(source) - len(rows))
    order = np.argsort(truth["collision"][source], kind="stable")
    place = np.empty(len(source), np.int32)
    place[order] = np.arange(len(source), dtype=np.int32)
    labels = np.full(len(reasons), -1, np.int32)
    labels[rows] = place[: len(rows)]
    zero = np.zeros(number, np.float32)
    position = simulated.vertex.astype(np.float32)
    collisions = {
        "fIndexBCs": np.arange(number, dtype=np.int32), "fGeneratorsID": np.zeros(number, np.int16),
        "fPosX": position[:, 0], "fPosY": position[:, 1], "fPosZ": position[:, 2],
        "fT": (simulated.event_time / 1000).astype(np.float32), "fWeight": zero + 1, "fImpactParameter": zero,
    }  # fmt: skip
    if form.mc_collision == "O2mccollision_001":
        collisions["fEventPlaneAngle"] = zero
    return {
        "O2mctracklabel": {"fIndexMcParticles": labels, "fMcMask": np.where(labelled, 0, 0x8000).astype(np.uint16)},
        "O2mcparticle_001": _particles(simulated, perigee, source[order], turn[order]),
        form.mc_collision: collisions,
        "O2mccollisionlabel": {
            "fIndexMcCollisions": np.arange(number, dtype=np.int32),
            "fMcMask": np.zeros(number, np.uint16),
        },
    }


def _particles(
    simulated: SimulatedTracks, perigee: helix.TrackParameters, source: NDArray[np.intp], turn: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the particles behind the tracks ``source``; their true momenta differ from the measured ones.

    Particles that left no track are like those that did, but for an azimuth turned by ``turn`` (rad).
    """
    truth = {name: values[source] for name, values in simulated.truth.items()}
    at_vertex = helix.TrackParameters(*(values[source] for values in perigee))
    at_vertex = at_vertex._replace(alpha=at_vertex.alpha + turn)
    px, py, pz = (component * truth["true_over_measured"] for component in helix.momentum(at_vertex))
    # Primaries come from the vertex; secondaries from where they were closest to it, which is on their helix.
    closest = np.column_stack(helix.global_position(at_vertex))
    origin = np.where(truth["primary"][:, None], simulated.vertex[truth["collision"]], closest)
    energy = np.sqrt(px**2 + py**2 + pz**2 + truth["mass"] ** 2)
    size = len(source)
    single = {
        "fWeight": np.ones(size), "fPx": px, "fPy": py, "fPz": pz, "fE": energy,
        "fVx": origin[:, 0], "fVy": origin[:, 1], "fVz": origin[:, 2],
        "fVt": simulated.event_time[truth["collision"]] / 1000,
    }  # fmt: skip
    return {
        "fIndexMcCollisions": truth["collision"].astype(np.int32),
        "fPdgCode": mixture.PDG[truth["species"]],
        "fStatusCode": np.where(truth["primary"], 1, 0).astype(np.int32),
        "fFlags": np.where(truth["primary"], _PRIMARY, _TRANSPORTED).astype(np.uint8),
        "fIndexArray_Mothers": _mothers(truth),
        "fIndexSlice_Daughters": np.full((size, 2), -1, np.int32),
    } | {name: values.astype(np.float32) for name, values in single.items()}


def _mothers(truth: dict[str, NDArray[Any]]) -> ak.Array:
    """Return the lists of mothers: none for primaries; for secondaries the first primary of their collision, if
    any.
    """
    primaries = np.flatnonzero(truth["primary"])
    collisions = truth["collision"][primaries]
    first = np.searchsorted(collisions, truth["collision"])
    known = first < len(collisions)
    known[known] = collisions[first[known]] == truth["collision"][known]
    known &= ~truth["primary"]
    return ak.unflatten(primaries[first[known]].astype(np.int32), known.astype(np.int64))
