"""How the detectors answer: TPC, TRD and TOF signals, their presence, and distances to the vertex.

Every response is a function of the *measured* momentum, so densities need no convolution over the momentum
resolution. Functions broadcast: the generator passes one species per track (mass of shape (tracks,)), the likelihood
all species (momenta of shape (tracks, 1), masses of shape (species,)). Momenta are in GeV/c, lengths in cm, times in
ps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pidml.species import ALL

Array = NDArray[np.float64]

#: Solenoid field, tesla, and speed of light, cm/ps.
FIELD = 0.5
LIGHT = 0.0299792458
_CURVATURE = 0.299792458e-2 * FIELD

# --- TPC
# -------------------------------------------------------------------------------------------------------------
#: ALEPH parametrisation of the Bethe–Bloch curve; values of the shape used for ALICE's TPC, minimum at about 1.
_ALEPH = (0.0320981, 19.9768, 2.52666e-16, 2.72123, 6.08092)
MIP = 50.0
#: Number of clusters with charge → probability. Not a feature of the networks: the likelihood sums over it.
CLUSTERS: NDArray[np.int64] = np.array([85, 105, 125, 140, 152])
CLUSTER_PROBABILITY: Array = np.array([0.05, 0.10, 0.20, 0.35, 0.30])
_TPC_RESOLUTION = 0.063


def bethe_bloch(beta_gamma: Array) -> Array:
    """Return the mean energy loss relative to a minimum-ionising particle's: the ALEPH parametrisation."""
    p1, p2, p3, p4, p5 = _ALEPH
    power = (1 + beta_gamma**-2) ** (-0.5 * p4)
    return np.asarray((p2 - power - np.log(p3 + beta_gamma**-p5)) * p1 / power)


def tpc_expected(p: Array, mass: Array) -> Array:
    """Return the expected TPC signal (minimum ionising ≈ 50)."""
    return MIP * bethe_bloch(p / mass)


def tpc_relative_resolution(clusters: NDArray[np.integer]) -> Array:
    """Return the width of the TPC signal relative to its expectation."""
    return np.asarray(_TPC_RESOLUTION * np.sqrt(159.0 / clusters))


def log_tpc(signal: Array, expected: Array) -> Array:
    """Return log p(TPC signal | species, p), the number of clusters summed over; a normalised density.

    The widest Gaussian is taken out of the sum, so signals any number of widths away keep a finite logarithm.
    """
    widths = tpc_relative_resolution(CLUSTERS)
    square = 0.5 * (signal / expected - 1) ** 2
    widest = widths.max()
    total = np.zeros_like(square)
    for width, probability in zip(widths, CLUSTER_PROBABILITY, strict=True):
        total += probability / width * np.exp(-square * (width**-2 - widest**-2))
    return np.asarray(np.log(total / expected) - square / widest**2 - 0.5 * np.log(2 * np.pi))


# --- paths
# -----------------------------------------------------------------------------------------------------------
TRD_RADIUS, TOF_RADIUS = 290.0, 378.0


def half_turn(pt: Array, radius: float) -> Array:
    """Return half the angle by which a track from the axis turns until ``radius``; π/2 if it does not get there."""
    return np.arcsin(np.minimum(0.5 * _CURVATURE * radius / pt, 1.0))


def path_length(pt: Array, p: Array, radius: float) -> Array:
    """Return the length (cm) of the helix from the axis to ``radius``."""
    return np.asarray(2 * half_turn(pt, radius) * p / _CURVATURE)


# --- TOF
# -------------------------------------------------------------------------------------------------------------
_TOF_RESOLUTION, _TOF_SCATTERING = 84.0, 30.0
EVENT_TIME_SPREAD = 180.0
MISMATCH_DELAY, MISMATCH_WIDTH = 2200.0, 250.0


def flight_time(length: Array, p: Array, mass: Array) -> Array:
    """Return the time of flight in ps of a particle of momentum ``p`` along ``length``."""
    return np.asarray(length / LIGHT * np.sqrt(1 + (mass / p) ** 2))


def tof_resolution(p: Array) -> Array:
    """Return the width in ps of the measured time of flight: electronics, event time and multiple scattering."""
    return np.hypot(_TOF_RESOLUTION, _TOF_SCATTERING / p)


def mismatch_probability(pt: Array) -> Array:
    """Return the probability that a track is matched to another particle's TOF hit."""
    return np.asarray(0.015 + 0.06 * np.exp(-pt / 0.5))


def _log_mismatch(time: Array, earliest: Array, width: float) -> Array:
    """Return the log density of a Gaussian (``earliest``, ``width``) plus an exponential delay (closed form)."""
    rate, shift = 1 / MISMATCH_DELAY, time - earliest
    argument = (rate * width**2 - shift) / (np.sqrt(2) * width)
    late = argument < 0
    tail = rate * (0.5 * rate * width**2 - shift) + np.log(special.erfc(np.where(late, argument, 0.0)))
    head = -0.5 * (shift / width) ** 2 + np.log(special.erfcx(np.where(late, 0.0, argument)))
    return np.asarray(np.log(0.5 * rate) + np.where(late, tail, head))


def log_flight_time(time: Array, length: Array, pt: Array, p: Array, mass: Array, spread: float = 0.0) -> Array:
    """Return log p(measured time of flight | species, momentum), a normalised density per ps.

    Args:
        time: ps; with ``spread`` > 0 the time still includes an unknown event time of that Gaussian width.
        length: cm.
        pt: GeV/c.
        p: GeV/c.
        mass: GeV/c².
        spread: ps.
    """
    width = np.hypot(tof_resolution(p), spread)
    pull = (time - flight_time(length, p, mass)) / width
    wrong = mismatch_probability(pt)
    core = np.log1p(-wrong) - 0.5 * pull**2 - np.log(width * np.sqrt(2 * np.pi))
    mismatched = np.log(wrong) + _log_mismatch(time, length / LIGHT, float(np.hypot(MISMATCH_WIDTH, spread)))
    return np.asarray(np.logaddexp(core, mismatched))


def log_beta(beta: Array, length: Array, pt: Array, p: Array, mass: Array) -> Array:
    """Return log p(β | species, momentum), a normalised density; see :func:`log_flight_time`."""
    time = length / (LIGHT * beta)
    return np.asarray(log_flight_time(time, length, pt, p, mass) + np.log(time / beta))


# --- TRD
# -------------------------------------------------------------------------------------------------------------
TRD_SIGNAL_WIDTH = 0.28
TRD_LAYER_EFFICIENCY = 0.88


def trd_expected_log(p: Array, mass: Array) -> Array:
    """Return the mean of log(TRD signal): ionisation, and transition radiation of electrons above γ ≈ 1000."""
    gamma = np.hypot(1.0, p / mass)
    radiation = 0.6 * special.expit((gamma - 1200) / 300)
    return np.asarray(np.log(20.0 * bethe_bloch(p / mass) * (1 + radiation)))


def log_trd(signal: Array, p: Array, mass: Array) -> Array:
    """Return log p(TRD signal | species, p), a normalised log-normal density."""
    pull = (np.log(signal) - trd_expected_log(p, mass)) / TRD_SIGNAL_WIDTH
    return np.asarray(-0.5 * pull**2 - np.log(signal * TRD_SIGNAL_WIDTH * np.sqrt(2 * np.pi)))


# --- presence
# --------------------------------------------------------------------------------------------------------
_KINDS = ("pion", "kaon", "proton", "electron", "muon")
#: Mass/(cτ), the inverse decay length (1/cm) at 1 GeV/c; cτ from the Particle Data Group 2024, 0 for stable ones.
_DECAY = {"pion": 0.13957039 / 780.45, "kaon": 0.493677 / 371.1, "muon": 0.1056583755 / 65865.4}
#: Absorbed or scattered away between TPC and TOF, in interaction lengths at high momentum and per 1/p.
_ABSORPTION = {"pion": (0.04, 0.010), "kaon": (0.04, 0.015), "proton": (0.05, 0.02), "antiproton": (0.08, 0.09),
               "electron": (0.25, 0.04), "positron": (0.25, 0.04)}  # fmt: skip


def _by_kind(table: dict[str, float], name: str) -> float:
    return table.get(name, table.get(name.removeprefix("anti"), 0.0))


DECAY_RATE: Array = np.array([_by_kind(_DECAY, s.name) for s in ALL])
ABSORPTION: Array = np.array([_by_kind({k: v[0] for k, v in _ABSORPTION.items()}, s.name) for s in ALL])
ABSORPTION_SLOW: Array = np.array([_by_kind({k: v[1] for k, v in _ABSORPTION.items()}, s.name) for s in ALL])
_TRD_ACCEPTANCE, _TRD_ONSET, _TRD_STEP = 0.965, 0.280, 0.035
_TOF_ACCEPTANCE, _TOF_ONSET, _TOF_STEP = 0.88, 0.38, 0.05
_TOF_WITHOUT_TRD = 0.22
_TPC_END = 247.0


def _sector_edges(azimuth: Array, depth: float) -> Array:
    """Return 1 inside the 18 sectors, less at their edges."""
    distance = np.abs((azimuth * (9 / np.pi) + 0.5) % 1.0 - 0.5)
    return np.asarray(1 - depth * np.exp(-((distance / 0.06) ** 2)))


def _survival(path: Array, p: Array, decay: Array, absorption: Array) -> Array:
    return np.exp(-path * decay / p - absorption)


def presence(
    pt: Array, p: Array, phi: Array, sign: Array, decay: Array, absorption: Array, absorption_slow: Array
) -> tuple[Array, Array, Array]:
    """Return P(TRD), P(TOF | TRD) and P(TOF | no TRD) of a track.

    Acceptance and onset depend on the momentum, sector edges on the azimuth at the detector (so on the charge),
    survival of decay and absorption on the species.

    Args:
        pt: GeV/c.
        p: GeV/c.
        phi: azimuth of the momentum at the vertex, rad.
        sign: charge, ±1.
        decay: :data:`DECAY_RATE` of the species.
        absorption: :data:`ABSORPTION` of the species.
        absorption_slow: :data:`ABSORPTION_SLOW` of the species.
    """
    turn_trd, turn_tof = half_turn(pt, TRD_RADIUS), half_turn(pt, TOF_RADIUS)
    to_trd = 2 / _CURVATURE * (turn_trd - half_turn(pt, _TPC_END)) * p
    to_tof = 2 / _CURVATURE * (turn_tof - turn_trd) * p
    lost = absorption + absorption_slow / p
    reach = _TRD_ACCEPTANCE * special.expit((pt - _TRD_ONSET) / _TRD_STEP) * _sector_edges(phi - sign * turn_trd, 0.5)
    trd = np.where(turn_trd < np.pi / 2, reach * _survival(to_trd, p, decay, 0.5 * lost), 0.0)
    reach = _TOF_ACCEPTANCE * special.expit((pt - _TOF_ONSET) / _TOF_STEP) * _sector_edges(phi - sign * turn_tof, 0.7)
    tof = np.where(turn_tof < np.pi / 2, reach * _survival(to_tof, p, decay, 0.5 * lost), 0.0)
    return trd, tof, _TOF_WITHOUT_TRD * tof


# --- distance of closest approach
# ------------------------------------------------------------------------------------
#: Mean and width of the collision vertex, cm.
VERTEX_MEAN: Array = np.array([-0.02, 0.01, 0.3])
VERTEX_WIDTH: Array = np.array([0.012, 0.012, 5.2])
DCA_Z_CUT = 2.0
_SECONDARY_XY, _SECONDARY_Z = 0.09, 0.45


def dca_xy_cut(pt: Array) -> Array:
    """Return the selection's limit on |DCAxy| in cm."""
    return np.asarray(0.0105 + 0.035 * pt**-1.1)


def dca_widths(pt: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return the Gaussian widths (cm) of DCAxy and DCAz of primaries, then of secondaries (before the selection)."""
    xy = 0.0015 + 0.0050 * pt**-1.1
    z = 0.0020 + 0.0065 * pt**-1.1
    return (xy, z), (np.hypot(xy, _SECONDARY_XY), np.hypot(z, _SECONDARY_Z))


def log_truncated_gaussian(value: Array, width: Array, cut: Array | float, smearing: float = 0.0) -> Array:
    """Return the log density of a Gaussian of ``width`` cut at ±``cut``, smeared by a Gaussian of width ``smearing``.

    Without smearing, values beyond the cut are given the continued density: such tracks are not selected, and ratios
    between species stay meaningful.
    """
    total = np.hypot(width, smearing)
    log_density = (
        -0.5 * (value / total) ** 2 - np.log(total * np.sqrt(2 * np.pi)) - np.log(special.erf(cut / width / np.sqrt(2)))
    )
    if smearing == 0:
        return np.asarray(log_density)
    centre, inner = value * (width / total) ** 2, width * smearing / total
    upper, lower = (cut - centre) / inner, (-cut - centre) / inner
    # By symmetry both limits can be moved to the side where the normal distribution is not rounded to 1.
    flip = lower > 0
    upper, lower = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
    inside = special.log_ndtr(upper) + np.log1p(
        -np.exp(np.minimum(special.log_ndtr(lower) - special.log_ndtr(upper), -1e-300))
    )
    return np.asarray(log_density + inside)
