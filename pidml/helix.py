"""Helices of charged tracks in a solenoid field, exact in float64 and vectorised over tracks.

A track is described as in O2: a point (X, Y, Z) in a frame rotated by Alpha about the beam axis, snp = sin of the angle
between the momentum's transverse part and the local x axis (its cosine is positive), tgl = pz/pT, and charge/pT.
The signed curvature is κ = −0.299792458e-2 · B[T] · (charge/pT)[c/GeV] in 1/cm: the direction of flight turns by κ per
cm of transverse path. All formulas below stay exact for κ → 0: none divides a difference of nearly equal numbers by κ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Curvature in 1/cm of a track of charge 1 and pT = 1 GeV/c in 1 T; the sign is O2's (``constants::math::B2C``).
CURVATURE_PER_TESLA = -0.299792458e-2
_STRAIGHT = 1e-15


class TrackParameters(NamedTuple):
    """Tracks at a point of their helices; every field is a float64 array of shape (tracks,).

    Attributes:
        x: cm, local frame.
        alpha: rad, rotation of the local frame about z.
        y: cm, local frame.
        z: cm.
        snp: sine of the azimuth of the momentum in the local frame.
        tgl: pz/pT.
        signed1pt: charge/pT, c/GeV.
    """

    x: Array
    alpha: Array
    y: Array
    z: Array
    snp: Array
    tgl: Array
    signed1pt: Array


def as_parameters(
    x: object, alpha: object, y: object, z: object, snp: object, tgl: object, signed1pt: object
) -> TrackParameters:
    """Return :class:`TrackParameters` of arrays (or numbers) of any real dtype, converted to float64 and broadcast."""
    arrays = (np.asarray(value, np.float64) for value in (x, alpha, y, z, snp, tgl, signed1pt))
    return TrackParameters(*np.broadcast_arrays(*arrays))


def wrap_angle(angle: Array) -> Array:
    """Return ``angle`` (rad) brought into [−π, π)."""
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)


def curvature(signed1pt: Array, bz: float) -> Array:
    """Return the signed curvature in 1/cm for charge/pT in c/GeV and the field along z in tesla.

    A radius above 10¹⁵ cm is a straight line: such sagittas are lost in rounding, and the inverse may overflow.
    """
    kappa = np.asarray(CURVATURE_PER_TESLA * bz * signed1pt)
    return np.where(np.abs(kappa) < _STRAIGHT, 0.0, kappa)


def momentum(params: TrackParameters) -> tuple[Array, Array, Array]:
    """Return px, py, pz in GeV/c of tracks of charge ±1, in the laboratory frame."""
    pt = 1.0 / np.abs(params.signed1pt)
    angle = params.alpha + np.arcsin(params.snp)
    return pt * np.cos(angle), pt * np.sin(angle), pt * params.tgl


def global_position(params: TrackParameters) -> tuple[Array, Array, Array]:
    """Return x, y, z in cm in the laboratory frame."""
    cos, sin = np.cos(params.alpha), np.sin(params.alpha)
    return params.x * cos - params.y * sin, params.x * sin + params.y * cos, params.z


def rotate(params: TrackParameters, alpha: Array | float) -> TrackParameters:
    """Return the same points and momenta in frames rotated by ``alpha`` (rad).

    A frame in which a track flies towards negative x cannot hold it: its values become NaN.
    """
    new = np.broadcast_to(np.asarray(alpha, np.float64), params.x.shape)
    cos, sin = np.cos(new - params.alpha), np.sin(new - params.alpha)
    csp = np.sqrt((1 - params.snp) * (1 + params.snp))
    forward = csp * cos + params.snp * sin > 0
    x = np.where(forward, params.x * cos + params.y * sin, np.nan)
    y = np.where(forward, params.y * cos - params.x * sin, np.nan)
    snp = np.where(forward, params.snp * cos - csp * sin, np.nan)
    return TrackParameters(x, wrap_angle(new), y, params.z, snp, params.tgl, params.signed1pt)


def propagate_to_x(params: TrackParameters, x: Array | float, bz: float) -> TrackParameters:
    """Return tracks moved along their helices to ``x`` (cm) of their own frames; NaN where a helix does not get there.

    The formula is that of O2's ``TrackParametrization::propagateParamTo``, with the arc in closed form for every track.
    """
    step = np.asarray(x, np.float64) - params.x
    kappa = curvature(params.signed1pt, bz)
    snp = params.snp + kappa * step
    reached = np.abs(snp) <= 1
    snp = np.where(reached, snp, np.nan)
    before, after = np.sqrt((1 - params.snp) * (1 + params.snp)), np.sqrt((1 - snp) * (1 + snp))
    slope = (params.snp + snp) / (before + after)
    chord = step * np.sqrt(1 + slope * slope)
    half_turn = 0.5 * (np.arcsin(snp) - np.arcsin(params.snp))
    arc = chord / np.sinc(half_turn / np.pi)
    return TrackParameters(
        params.x + step,
        params.alpha,
        params.y + step * slope,
        params.z + params.tgl * arc,
        snp,
        params.tgl,
        params.signed1pt,
    )


def propagate_by_arc(params: TrackParameters, arc: Array | float, bz: float) -> TrackParameters:
    """Return tracks moved by the transverse path ``arc`` (cm, negative: backwards).

    The frames are turned with the direction of flight (alpha = azimuth of the momentum, snp = 0): any arc is
    possible.
    """
    kappa = curvature(params.signed1pt, bz)
    start = params.alpha + np.arcsin(params.snp)
    half_turn = 0.5 * kappa * arc
    chord = arc * np.sinc(half_turn / np.pi)
    gx, gy, gz = global_position(params)
    gx, gy = gx + chord * np.cos(start + half_turn), gy + chord * np.sin(start + half_turn)
    return _in_flight_frame(gx, gy, gz + params.tgl * arc, start + 2 * half_turn, params.tgl, params.signed1pt)


def _in_flight_frame(gx: Array, gy: Array, gz: Array, phi: Array, tgl: Array, signed1pt: Array) -> TrackParameters:
    """Return tracks at laboratory points in frames along their direction of flight ``phi``."""
    cos, sin = np.cos(phi), np.sin(phi)
    return TrackParameters(
        gx * cos + gy * sin, wrap_angle(phi), gy * cos - gx * sin, gz, np.zeros_like(gx), tgl, signed1pt
    )


def from_momentum(px: Array, py: Array, pz: Array, position: Array, charge: Array) -> TrackParameters:
    """Return the parameters of particles at a point, in frames along their direction of flight.

    Args:
        px: GeV/c, shape (tracks,); ``py`` and ``pz`` likewise.
        py: see ``px``.
        pz: see ``px``.
        position: laboratory x, y, z in cm, shape (tracks, 3) or (3,).
        charge: ±1, shape (tracks,).
    """
    pt = np.hypot(px, py)
    gx, gy, gz = _components(position, pt.shape)
    return _in_flight_frame(gx, gy, gz, np.arctan2(py, px), pz / pt, charge / pt)


def propagate_to_radius(params: TrackParameters, radius: Array | float, bz: float) -> TrackParameters:
    """Return tracks where they cross the cylinder of ``radius`` (cm) about the z axis on their way out.

    The crossing is the first one after the point closest to the axis. NaN where a helix does not reach the cylinder.
    The frames are along the direction of flight.
    """
    perigee, distance, _ = propagate_to_vertex(params, np.zeros(3), bz)
    kappa = curvature(params.signed1pt, bz)
    with np.errstate(invalid="ignore"):
        half_chord = 0.5 * np.sqrt((np.square(radius) - distance**2) / (1 + kappa * distance))
        half_turn = np.arcsin(kappa * half_chord)
    return propagate_by_arc(perigee, 2 * half_chord / np.sinc(half_turn / np.pi), bz)


def propagate_to_vertex(params: TrackParameters, vertex: Array, bz: float) -> tuple[TrackParameters, Array, Array]:
    """Return tracks at their transverse point of closest approach to a vertex, with both distances.

    The point, frame and signs are those of O2's ``propagateToDCA``: alpha is the momentum's azimuth there, snp is 0.

    Args:
        params: tracks anywhere on their helices, less than half a turn from the vertex.
        vertex: laboratory x, y, z in cm, shape (tracks, 3) or (3,).
        bz: field along z in tesla.

    Returns:
        The tracks there; dcaXY = Y − Y_vertex in the new local frames (cm); dcaZ = Z − Z_vertex (cm).
    """
    kappa = curvature(params.signed1pt, bz)
    gx, gy, gz = global_position(params)
    vx, vy, vz = _components(vertex, params.x.shape)
    phi = params.alpha + np.arcsin(params.snp)
    cos, sin = np.cos(phi), np.sin(phi)
    # The track relative to the vertex, along its direction of flight and to the left of it; the circle's centre is 1/κ
    # further to the left. The direction of flight at the closest point is perpendicular to the line vertex – centre.
    along = (gx - vx) * cos + (gy - vy) * sin
    left = (gy - vy) * cos - (gx - vx) * sin
    towards = np.hypot(kappa * along, 1 + kappa * left)
    turn = np.arctan2(-kappa * along, 1 + kappa * left)
    straight = kappa == 0
    arc = np.where(straight, -along, turn / np.where(straight, 1.0, kappa))
    dca_xy = (kappa * (along**2 + left**2) + 2 * left) / (towards + 1)
    dca_z = gz + params.tgl * arc - vz
    azimuth = phi + turn
    cos, sin = np.cos(azimuth), np.sin(azimuth)
    there = TrackParameters(
        vx * cos + vy * sin,
        wrap_angle(azimuth),
        vy * cos - vx * sin + dca_xy,
        vz + dca_z,
        np.zeros_like(dca_xy),
        params.tgl,
        params.signed1pt,
    )
    return there, dca_xy, dca_z


def _components(points: Array, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Split points of shape (3,) or (tracks, 3) into three float64 arrays of ``shape``."""
    parts = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    x, y, z = (np.broadcast_to(part, shape) for part in parts)
    return x, y, z
