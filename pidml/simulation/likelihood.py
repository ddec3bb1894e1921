"""The exact likelihood and posterior of simulated tracks, for exactly what a network sees.

``log p(track | species)`` is a sum of independent terms: spectrum, charge, presence of TRD and TOF, TPC signal, β,
TRD signal, distances to the vertex. Terms that are the same for all species (azimuth, vertex, event time, TRD
pattern, shared clusters, track type) are left out. What the features or the momentum limits hide is summed or
integrated over, in closed form; so the posterior is the best any classifier can know, and its F1 the best any
classifier can reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml.errors import MissingColumn, SpecError
from pidml.simulation import mixture, response
from pidml.species import TARGETS
from pidml.tracks import FEATURES, MomentumLimits

Array = NDArray[np.float64]
_CHUNK = 32_768
_MOMENTUM = ("fPx", "fPy", "fPz")
_DECAY = (response.DECAY_RATE, response.ABSORPTION, response.ABSORPTION_SLOW)


def log_likelihood(
    columns: Mapping[str, NDArray[Any]],
    features: Sequence[str] = FEATURES,
    limits: MomentumLimits | None = None,
) -> Array:
    """Return log p(track | species), up to terms that all species share.

    Args:
        columns: raw values by name, shape (tracks,) each, NaN for missing (:func:`pidml.tracks.normalise_missing`);
        the
            features and ``fPx``, ``fPy``, ``fPz``. ``fPt``, ``fP`` and ``fEta`` follow from these and are not read.
        features: what the network sees; other columns are not read. They must fix the momentum.
        limits: momenta below which TOF and TRD are hidden, whether or not ``columns`` still holds them.

    Returns:
        float64 array (tracks, species), species in the order of :data:`pidml.species.ALL`; −∞ where impossible.

    Raises:
        MissingColumn: a column that the features call for is not there.
        SpecError: the features do not fix the momentum.
    """
    _check_features(columns, features)
    limits = limits or MomentumLimits()
    size = len(columns["fPx"])
    result = np.empty((size, len(mixture.MASS)))
    for start in range(0, size, _CHUNK):
        part = slice(start, start + _CHUNK)
        chunk = {
            name: np.asarray(columns[name][part], np.float64) for name in {*features, *_MOMENTUM} if name in columns
        }
        result[part] = _Chunk(chunk, features, limits).log_likelihood()
    return result


def posterior(
    columns: Mapping[str, NDArray[Any]],
    features: Sequence[str] = FEATURES,
    limits: MomentumLimits | None = None,
    *,
    all_species: bool = False,
) -> Array:
    """Return P(species | what the network sees) of selected tracks; arguments and errors of :func:`log_likelihood`.

    Returns:
        float64 array (tracks, 6), order of :data:`pidml.species.TARGETS`; with ``all_species`` (tracks, 10), which
        adds up to 1.
    """
    joint = log_likelihood(columns, features, limits)
    joint += np.log(mixture.PRIOR)
    for start in range(0, len(joint), _CHUNK):
        part = joint[start : start + _CHUNK]
        part -= part.max(axis=1, keepdims=True)
        np.exp(part, out=part)
        part /= part.sum(axis=1, keepdims=True)
    return joint if all_species else joint[:, : len(TARGETS)]


def _check_features(columns: Mapping[str, NDArray[Any]], features: Sequence[str]) -> None:
    names = set(features)
    angles = {"fPt", "fEta", "fAlpha"}
    if not (names.issuperset(_MOMENTUM) or names >= angles):
        raise SpecError(
            f"the exact posterior is known for features that fix the momentum; got {sorted(names)}",
            f"add {', '.join(_MOMENTUM)} (or {', '.join(sorted(angles))}) to the features, or leave the optimum out",
        )
    derived = {"fP", "fPt", "fEta", "fAlpha"}
    absent = sorted(({*names, *_MOMENTUM} - derived) - set(columns))
    if absent:
        raise MissingColumn(
            f"the exact likelihood needs the columns {', '.join(absent)}", "read them from the track table"
        )


class _Chunk:
    """The terms of the likelihood for a few tracks; arrays of momenta have shape (tracks, 1)."""

    def __init__(self, columns: Mapping[str, Array], features: Sequence[str], limits: MomentumLimits) -> None:
        self.columns, self.features = columns, frozenset(features)
        px, py, pz = (columns[name][:, None] for name in _MOMENTUM)
        self.pt, self.phi = np.hypot(px, py), np.arctan2(py, px)
        self.p = np.hypot(self.pt, pz)
        # The limits act on float32 momenta when tracks are prepared; the same rounding decides here.
        self.sees_tof = bool({"fBeta", "fTOFSignal"} & self.features) & (
            self.p.astype(np.float32) >= np.float32(limits.tof)
        )
        self.sees_trd = bool({"fTRDPattern", "fTRDSignal"} & self.features) & (
            self.p.astype(np.float32) >= np.float32(limits.trd)
        )

    def log_likelihood(self) -> Array:
        """Return the sum of all terms, shape (tracks, species)."""
        total = mixture.log_spectrum(self.pt[:, 0]) + self._charge() + self._presence()
        return total + self._tpc() + self._tof() + self._trd() + self._dca()

    def _seen(self, name: str) -> Array | None:
        """Return a feature as (tracks, 1), or None if the network does not see it."""
        return self.columns[name][:, None] if name in self.features else None

    def _charge(self) -> Array | float:
        sign = self._seen("fSign")
        return 0.0 if sign is None else np.where(sign * mixture.SIGN < 0, -np.inf, 0.0)

    def _has(self, *names: str) -> Array:
        there = [~np.isnan(values) for name in names if (values := self._seen(name)) is not None]
        return np.asarray(np.all(there, axis=0) if there else np.zeros(self.p.shape, bool))

    def _presence(self) -> Array:
        trd, tof_trd, tof_alone = response.presence(self.pt, self.p, self.phi, mixture.SIGN, *_DECAY)
        has_trd, has_tof = self._has("fTRDPattern", "fTRDSignal"), self._has("fBeta", "fTOFSignal")
        tof_given = np.where(
            has_trd, np.where(has_tof, tof_trd, 1 - tof_trd), np.where(has_tof, tof_alone, 1 - tof_alone)
        )
        trd_seen = np.where(has_trd, trd, 1 - trd)
        tof = trd * tof_trd + (1 - trd) * tof_alone
        tof_only = np.where(has_tof, tof, 1 - tof)
        chance = np.where(self.sees_trd, trd_seen, 1.0)
        chance = np.where(self.sees_tof, np.where(self.sees_trd, trd_seen * tof_given, tof_only), chance)
        # A pattern that the simulation cannot make (TOF where the helix does not reach it) says nothing about the
        # species.
        impossible = ~np.any(chance > 0, axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            return np.where(impossible, 0.0, np.log(chance))

    def _tpc(self) -> Array | float:
        signal = self._seen("fTPCSignal")
        if signal is None:
            return 0.0
        term = response.log_tpc(signal, response.tpc_expected(self.p, mixture.MASS))
        return np.where(np.isnan(signal), 0.0, term)

    def _tof(self) -> Array | float:
        beta, time = self._seen("fBeta"), self._seen("fTOFSignal")
        values = time if beta is None else beta
        if values is None:
            return 0.0
        usable = np.flatnonzero((self.sees_tof & ~np.isnan(values))[:, 0])
        pt, p, values = self.pt[usable], self.p[usable], values[usable]
        length = response.path_length(pt, p, response.TOF_RADIUS)
        term = np.zeros((len(self.p), len(mixture.MASS)))
        if beta is None:
            # Without β the network does not know the event time; its spread adds to the resolution.
            spread = response.EVENT_TIME_SPREAD
            term[usable] = response.log_flight_time(values, length, pt, p, mixture.MASS, spread)
        else:
            term[usable] = response.log_beta(values, length, pt, p, mixture.MASS)
        return term

    def _trd(self) -> Array | float:
        signal = self._seen("fTRDSignal")
        if signal is None:
            return 0.0
        usable = np.flatnonzero((self.sees_trd & ~np.isnan(signal))[:, 0])
        term = np.zeros((len(self.p), len(mixture.MASS)))
        term[usable] = response.log_trd(signal[usable], self.p[usable], mixture.MASS)
        return term

    def _dca(self) -> Array | float:
        """Return the term of both distances: primaries and secondaries summed over."""
        primary, secondary = response.dca_widths(self.pt)
        logs = [np.zeros_like(self.pt), np.zeros_like(self.pt)]
        cuts = (response.dca_xy_cut(self.pt), np.array(response.DCA_Z_CUT))
        seen = (self._distance("fDcaXY", "fY", 0), self._distance("fDcaZ", "fZ", 2))
        for axis, (distance, cut) in enumerate(zip(seen, cuts, strict=True)):
            if distance is None:
                continue
            value, smearing = distance
            for component, width in enumerate((primary[axis], secondary[axis])):
                logs[component] = logs[component] + response.log_truncated_gaussian(value, width, cut, smearing)
        fraction = mixture.secondary_fraction(self.pt[:, 0])
        return np.asarray(np.logaddexp(np.log1p(-fraction) + logs[0], np.log(fraction) + logs[1]))

    def _distance(self, name: str, place: str, axis: int) -> tuple[Array, float] | None:
        """Return a distance and by how much it is smeared, from its own column or from the point of closest approach.

        Without the distance, the point still tells it to within the spread of the collision vertices.
        """
        value, point = self._seen(name), self._seen(place)
        if value is not None:
            return value, 0.0
        if point is None:
            return None
        mean = response.VERTEX_MEAN
        centre = mean[2] if axis == 2 else mean[1] * np.cos(self.phi) - mean[0] * np.sin(self.phi)
        return point - centre, float(response.VERTEX_WIDTH[axis])
