"""Draws tracks: collisions, kinematics, species, detector response; the same formulas as the likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray
from scipy import special

from pidml.simulation import mixture, response
from pidml.simulation.distortion import Distortion

Array = NDArray[np.float64]
#: Selected tracks per collision, mean of the geometric distribution.
TRACKS_PER_COLLISION = 8.0


@dataclass
class SimulatedTracks:
    """Selected tracks, in the order of their collisions.

    Attributes:
        columns: track-table columns, shape (tracks,): float32 with NaN for missing, ``fPdgCode`` int32 and
            ``fIsPhysicalPrimary`` uint8.
        truth: what a track table does not hold, shape (tracks,), float64 unless said otherwise: ``species`` (int8,
            index into ``species.ALL``), ``clusters`` (int16), ``collision`` (int64, row of the two arrays below),
            ``primary`` and ``mismatch`` (bool), ``length`` (cm, to TOF), ``true_over_measured`` (momentum); and
            unrounded ``pt``, ``p``, ``eta``, ``phi``, ``sign``, ``mass``, ``dca_xy``, ``dca_z``, ``beta``, ``tof``.
        vertex: x, y, z in cm of the collisions, float64 (collisions, 3).
        event_time: ps relative to the bunch crossing, float64 (collisions,).
    """

    columns: dict[str, NDArray[Any]]
    truth: dict[str, NDArray[Any]]
    vertex: Array
    event_time: Array


def generator(seed: int | SeedSequence) -> Generator:
    """Return the random generator that a seed stands for."""
    return np.random.Generator(np.random.SFC64(seed))


def generate_tracks(
    tracks: int, seed: int | SeedSequence | Generator, distortion: Distortion | None = None
) -> SimulatedTracks:
    """Simulate ``tracks`` selected tracks; the same seed gives the same tracks, with a distorted response if asked."""
    rng = seed if isinstance(seed, Generator) else generator(seed)
    truth = _kinematics(rng, tracks)
    vertex, event_time = _collisions(rng, tracks, truth)
    _distances(rng, truth)
    columns: dict[str, NDArray[Any]] = {}
    _tpc(rng, truth, columns)
    _trd_and_tof(rng, truth, columns, event_time)
    columns["fTPCNClsShared"] = _shared_clusters(rng, tracks)
    _finish_columns(truth, columns, vertex)
    result = SimulatedTracks(columns, truth, vertex, event_time)
    if distortion is not None:
        distortion.apply(rng, result)
    return result


def _kinematics(rng: Generator, tracks: int) -> dict[str, NDArray[Any]]:
    species = np.searchsorted(np.cumsum(mixture.PRIOR)[:-1], rng.random(tracks), side="right").astype(np.int8)
    pt = mixture.draw_pt(rng.random(tracks), species)
    eta = rng.uniform(-mixture.ETA_MAX, mixture.ETA_MAX, tracks)
    return {
        "species": species,
        "pt": pt,
        "eta": eta,
        "phi": rng.uniform(-np.pi, np.pi, tracks),
        "p": pt * np.cosh(eta),
        "sign": mixture.SIGN[species],
        "mass": mixture.MASS[species],
        "true_over_measured": 1 + (0.007 + 0.0015 * pt) * rng.standard_normal(tracks),
        "primary": rng.random(tracks) >= mixture.secondary_fraction_of(pt, species),
    }


def _collisions(rng: Generator, tracks: int, truth: dict[str, NDArray[Any]]) -> tuple[Array, Array]:
    """Share the tracks out among collisions; return vertices and event times."""
    draws = rng.geometric(1 / TRACKS_PER_COLLISION, int(tracks / TRACKS_PER_COLLISION + 10 * np.sqrt(tracks) + 20))
    ends = np.cumsum(draws)
    number = int(np.searchsorted(ends, tracks)) + 1
    sizes = draws[:number].copy()
    sizes[-1] -= ends[number - 1] - tracks
    truth["collision"] = np.repeat(np.arange(number), sizes)
    vertex = response.VERTEX_MEAN + response.VERTEX_WIDTH * rng.standard_normal((number, 3))
    return vertex, response.EVENT_TIME_SPREAD * rng.standard_normal(number)


def _distances(rng: Generator, truth: dict[str, NDArray[Any]]) -> None:
    """Draw both distances to the vertex, within the selection's limits."""
    pt = truth["pt"]
    (xy, z), _ = response.dca_widths(pt)
    # The limits are at 7 (xy) and more widths of primaries: what lies beyond is less than one track in 10^11.
    cut = response.dca_xy_cut(pt)
    truth["dca_xy"] = np.clip(xy * rng.standard_normal(len(pt)), -cut, cut)
    truth["dca_z"] = np.clip(z * rng.standard_normal(len(pt)), -response.DCA_Z_CUT, response.DCA_Z_CUT)
    far = np.flatnonzero(~truth["primary"])
    widths = response.dca_widths(pt[far])[1]
    for name, width, limit in (("dca_xy", widths[0], cut[far]), ("dca_z", widths[1], response.DCA_Z_CUT)):
        inside = special.erf(limit / width / np.sqrt(2))
        truth[name][far] = width * special.ndtri(0.5 + 0.5 * inside * rng.uniform(-1, 1, len(far)))


def _shared_clusters(rng: Generator, tracks: int) -> NDArray[np.float32]:
    """Return numbers of shared clusters: none for most tracks, geometric for the others."""
    shared = rng.standard_exponential(tracks, np.float32) * np.float32(12)
    shared[rng.random(tracks, np.float32) < 0.7] = 0
    return np.asarray(np.minimum(np.floor(shared), 150), np.float32)


def _tpc(rng: Generator, truth: dict[str, NDArray[Any]], columns: dict[str, NDArray[Any]]) -> None:
    size = len(truth["p"])
    choice = np.searchsorted(np.cumsum(response.CLUSTER_PROBABILITY)[:-1], rng.random(size), side="right")
    truth["clusters"] = response.CLUSTERS[choice].astype(np.int16)
    expected = response.tpc_expected(truth["p"], truth["mass"])
    resolution = response.tpc_relative_resolution(response.CLUSTERS)[choice]
    columns["fTPCSignal"] = (expected * (1 + resolution * rng.standard_normal(size))).astype(np.float32)


def _trd_and_tof(
    rng: Generator, truth: dict[str, NDArray[Any]], columns: dict[str, NDArray[Any]], event_time: Array
) -> None:
    species, pt, p = truth["species"], truth["pt"], truth["p"]
    size = len(pt)
    kinds = (response.DECAY_RATE[species], response.ABSORPTION[species], response.ABSORPTION_SLOW[species])
    trd, tof_trd, tof_alone = response.presence(pt, p, truth["phi"], truth["sign"], *kinds)
    has_trd = rng.random(size) < trd
    has_tof = rng.random(size) < np.where(has_trd, tof_trd, tof_alone)
    columns |= _trd(rng, truth, np.flatnonzero(has_trd))
    columns |= _tof(rng, truth, np.flatnonzero(has_tof), event_time)


def _scattered(values: Array, rows: NDArray[np.intp], size: int) -> NDArray[np.float64]:
    """Return ``values`` at ``rows`` and NaN elsewhere."""
    result = np.full(size, np.nan)
    result[rows] = values
    return result


def _trd(rng: Generator, truth: dict[str, NDArray[Any]], rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    size = len(truth["p"])
    bits = np.zeros(len(rows), np.uint8)
    empty = np.arange(len(rows))
    while len(empty):  # a track has TRD if a layer answered
        layers = rng.random((len(empty), 6), np.float32) < response.TRD_LAYER_EFFICIENCY
        bits[empty] = np.packbits(layers, axis=1, bitorder="little")[:, 0]
        empty = empty[bits[empty] == 0]
    mean = response.trd_expected_log(truth["p"][rows], truth["mass"][rows])
    signal = np.exp(mean + response.TRD_SIGNAL_WIDTH * rng.standard_normal(len(rows)))
    return {
        "fTRDSignal": _scattered(signal, rows, size).astype(np.float32),
        "fTRDPattern": _scattered(bits.astype(np.float64), rows, size).astype(np.float32),
    }


def _tof(
    rng: Generator, truth: dict[str, NDArray[Any]], rows: NDArray[np.intp], event_time: Array
) -> dict[str, NDArray[Any]]:
    pt, p = truth["pt"][rows], truth["p"][rows]
    length = response.path_length(pt, p, response.TOF_RADIUS)
    time = response.flight_time(length, p, truth["mass"][rows])
    time += response.tof_resolution(p) * rng.standard_normal(len(rows))
    wrong = rng.random(len(rows)) < response.mismatch_probability(pt)
    late = np.flatnonzero(wrong)
    delay = response.MISMATCH_DELAY * rng.standard_exponential(len(late))
    time[late] = length[late] / response.LIGHT + delay + response.MISMATCH_WIDTH * rng.standard_normal(len(late))
    size = len(truth["pt"])
    truth["length"] = _scattered(length, rows, size)
    truth["beta"] = _scattered(length / (time * response.LIGHT), rows, size)
    truth["tof"] = _scattered(time + event_time[truth["collision"][rows]], rows, size)
    truth["mismatch"] = np.zeros(size, bool)
    truth["mismatch"][rows[late]] = True
    return {"fTOFSignal": truth["tof"].astype(np.float32), "fBeta": truth["beta"].astype(np.float32)}


def _finish_columns(truth: dict[str, NDArray[Any]], columns: dict[str, NDArray[Any]], vertex: Array) -> None:
    """Fill in momentum, reference point and truth columns."""
    pt, phi, size = truth["pt"], truth["phi"], len(truth["pt"])
    cos, sin = np.cos(phi), np.sin(phi)
    vx, vy, vz = vertex[truth["collision"]].T
    pz = pt * np.sinh(truth["eta"])
    single = {
        "fP": truth["p"], "fPt": pt, "fPx": pt * cos, "fPy": pt * sin, "fPz": pz, "fSign": truth["sign"],
        "fX": vx * cos + vy * sin, "fY": vy * cos - vx * sin + truth["dca_xy"], "fZ": vz + truth["dca_z"],
        "fAlpha": phi, "fDcaXY": truth["dca_xy"], "fDcaZ": truth["dca_z"],
    }  # fmt: skip
    columns |= {name: values.astype(np.float32) for name, values in single.items()}
    columns["fTrackType"] = np.zeros(size, np.float32)
    columns["fPdgCode"] = mixture.PDG[truth["species"]]
    columns["fIsPhysicalPrimary"] = truth["primary"].astype(np.uint8)
