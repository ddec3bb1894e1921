"""What flies: fractions, momentum spectra and secondaries of the ten species among *selected* tracks.

Numbers are in the order of :data:`pidml.species.ALL`. All quantities refer to tracks that pass the global-track
selection, so the fractions are the priors of the posterior. They follow a published simulation of pp collisions of
2018: 87.2 % pions, 6.7 % kaons, 3.9 % protons, 1.6 % electrons and 0.7 % muons.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pidml.species import ALL

Array = NDArray[np.float64]

#: Limits of the selection: transverse momentum (GeV/c) and pseudorapidity.
PT_MIN, PT_MAX = 0.1, 20.0
ETA_MAX = 0.8

MASS: Array = np.array([species.mass for species in ALL])
SIGN: Array = np.array([species.sign for species in ALL], np.float64)
PDG: NDArray[np.int32] = np.array([species.pdg for species in ALL], np.int32)

_TRACKS = {"pion": 2400.0, "kaon": 184.0, "proton": 106.0, "electron": 43.0, "muon": 18.0}
_POSITIVE_SHARE = {"pion": 0.502, "kaon": 0.508, "proton": 0.53, "electron": 0.5, "muon": 0.505}
#: Lévy–Tsallis temperature (GeV) and power of the spectra of selected tracks.
_SPECTRUM = {
    "pion": (0.155, 7.2),
    "kaon": (0.215, 6.8),
    "proton": (0.240, 7.8),
    "electron": (0.090, 6.0),
    "muon": (0.130, 7.0),
}
#: Fraction of secondaries at pT → 0; it falls as exp(−pT/scale), scale in GeV/c.
_SECONDARY = {
    "pion": (0.09, 1.6),
    "kaon": (0.012, 1.0),
    "proton": (0.34, 1.3),
    "antiproton": (0.20, 1.6),
    "electron": (0.75, 2.0),
    "muon": (0.70, 1.5),
}


def _kind(name: str) -> str:
    return "electron" if name == "positron" else name.removeprefix("anti")


def _share(name: str, sign: int) -> float:
    positive = _POSITIVE_SHARE[_kind(name)]
    return positive if sign > 0 else 1 - positive


#: Prior probability of each species.
PRIOR: Array = np.array([_TRACKS[_kind(s.name)] * _share(s.name, s.sign) for s in ALL]) / sum(_TRACKS.values())
_TEMPERATURE: Array = np.array([_SPECTRUM[_kind(s.name)][0] for s in ALL])
_POWER: Array = np.array([_SPECTRUM[_kind(s.name)][1] for s in ALL])
_SECONDARY_SIZE: Array = np.array([_SECONDARY.get(s.name, _SECONDARY[_kind(s.name)])[0] for s in ALL])
_SECONDARY_SCALE: Array = np.array([_SECONDARY.get(s.name, _SECONDARY[_kind(s.name)])[1] for s in ALL])

_POINTS = 8193


def _log_shape(pt: Array) -> Array:
    """Return log of the unnormalised dN/dpT of every species; shape of ``pt`` plus (species,).

    Lévy–Tsallis: pT·(1 + (mT − m)/(nT))^−n, C. Tsallis, J. Stat. Phys. 52 (1988) 479; the form used for spectra in
    pp.
    """
    pt = pt[..., None]
    kinetic = np.hypot(pt, MASS) - MASS
    return np.asarray(np.log(pt) - _POWER * np.log1p(kinetic / (_POWER * _TEMPERATURE)))


@lru_cache(maxsize=1)
def _tables() -> tuple[Array, Array, Array]:
    """Return pT points, the cumulative spectra at them (species, points) and the logs of the norms (species,)."""
    points = np.geomspace(PT_MIN, PT_MAX, _POINTS)
    shape = np.exp(_log_shape(points))
    cumulative = np.zeros((len(ALL), _POINTS))
    np.cumsum((0.5 * (shape[1:] + shape[:-1]) * np.diff(points)[:, None]).T, axis=1, out=cumulative[:, 1:])
    norm = cumulative[:, -1].copy()
    return points, cumulative / norm[:, None], np.log(norm)


def log_spectrum(pt: Array) -> Array:
    """Return log p(pT | species), pT in GeV/c of shape (tracks,); result (tracks, species), density per GeV/c.

    Pseudorapidity and azimuth are flat and independent of the species; their density, 1/(4π·0.8), is not included.
    """
    return _log_shape(pt) - _tables()[2]


def draw_pt(uniform: Array, species: NDArray[np.integer]) -> Array:
    """Return pT (GeV/c) for uniform numbers and species indices, both of shape (tracks,)."""
    points, cumulative, _ = _tables()
    pt = np.empty_like(uniform)
    for index in range(len(ALL)):
        chosen = np.flatnonzero(species == index)
        pt[chosen] = np.interp(uniform[chosen], cumulative[index], points)
    return pt


def secondary_fraction(pt: Array) -> Array:
    """Return P(secondary | species, pT) for pT (GeV/c) of shape (tracks,); result (tracks, species)."""
    return np.asarray(_SECONDARY_SIZE * np.exp(-pt[..., None] / _SECONDARY_SCALE))


def secondary_fraction_of(pt: Array, species: NDArray[np.integer]) -> Array:
    """Return P(secondary) of tracks of known species; both arguments and the result of shape (tracks,)."""
    return np.asarray(_SECONDARY_SIZE[species] * np.exp(-pt / _SECONDARY_SCALE[species]))
