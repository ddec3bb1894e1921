"""Expected detector signals per species, measured on labelled tracks: what nσ is counted from where a table has no nσ.

For each of e, μ, π, K and p (both charges together) the measured quantity is profiled against momentum: in bins of
ln p, merged until each holds enough tracks, the median gives the expectation and half the central 68.27 % interval the
resolution, both robust against tails such as wrong TOF matches. Between bins they are interpolated (monotone cubic,
PCHIP), outside the bins continued with the slope at the edge. The quantities are ln(dE/dx), whose spread is the
relative resolution, and 1/β − 1/β_expected, whose spread is the time resolution over the path length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from pidml import species
from pidml.data.prepared import Split
from pidml.evaluation.intervals import ONE_SIGMA, Real

#: Hypothesis as it is spelt in column names → species (of positive charge).
HYPOTHESES: dict[str, species.Species] = {
    "Pi": species.by_name("pion"),
    "Ka": species.by_name("kaon"),
    "Pr": species.by_name("proton"),
}
#: With those that are told apart from them but not identified.
ALL_HYPOTHESES: dict[str, species.Species] = {
    "El": species.by_name("electron"),
    "Mu": species.by_name("muon"),
    **HYPOTHESES,
}
_BINS_PER_UNIT = 12  # bins per unit of ln p: 8 % of the momentum each
_MIN_TRACKS = 60  # per bin: the median is then known to 0.16 σ
_FEWEST_BINS = 2
#: Fewest tracks of a species, spread over momentum, that its response can be measured on.
FEWEST_TRACKS = _FEWEST_BINS * _MIN_TRACKS
_MAX_TRACKS = 2_000_000


def inverse_beta(momentum: Real, mass: float) -> Real:
    """Return 1/β = √(1 + m²/p²) for momenta in GeV/c and a mass in GeV/c²."""
    return np.sqrt(1.0 + (mass / momentum) ** 2)


@dataclass(frozen=True)
class Profile:
    """Median and spread of a quantity as functions of momentum (GeV/c)."""

    centre: Callable[[Real], Real]
    width: Callable[[Real], Real]
    tracks: int


def profile(momentum: Real, values: Real) -> Profile | None:
    """Measure a :class:`Profile`; None if there are fewer than two bins' worth of tracks.

    Args:
        momentum: GeV/c, shape (tracks,), positive.
        values: the quantity, finite, shape (tracks,).
    """
    order = np.argsort(momentum, kind="stable")
    x, y = np.log(momentum[order]), values[order]
    starts = _bin_starts(x)
    if len(starts) < _FEWEST_BINS:
        return None
    parts = list(zip(starts, [*starts[1:], len(x)], strict=True))
    middle = np.array([np.median(x[low:high]) for low, high in parts])
    centre = _interpolated(middle, np.array([np.median(y[low:high]) for low, high in parts]))
    # Widths are taken after the trend within the bin is removed, or a steep trend would widen them.
    residual = y - centre(x)
    quantiles = [(1 - ONE_SIGMA) / 2, (1 + ONE_SIGMA) / 2]
    spread = np.array([np.diff(np.quantile(residual[low:high], quantiles))[0] / 2 for low, high in parts])
    spread = np.maximum(spread, 1e-6)
    log_width = _interpolated(middle, np.log(spread), flat=True)
    return Profile(lambda p: centre(np.log(p)), lambda p: np.exp(log_width(np.log(p))), len(x))


def _bin_starts(x: Real) -> list[int]:
    """Return where each bin starts in the sorted ``x``; bins are merged upwards until they hold enough."""
    if not len(x):
        return []
    edges = np.arange(x[0], x[-1], 1.0 / _BINS_PER_UNIT)
    starts: list[int] = []
    for start in np.searchsorted(x, edges):
        if not starts or start - starts[-1] >= _MIN_TRACKS:
            starts.append(int(start))
    while len(starts) > 1 and len(x) - starts[-1] < _MIN_TRACKS:
        starts.pop()
    return starts


def _interpolated(x: Real, y: Real, flat: bool = False) -> Callable[[Real], Real]:
    """Return a smooth curve through the points, continued beyond them with the edge's slope (or flat)."""
    inside = PchipInterpolator(x, y)
    slopes = (0.0, 0.0) if flat else ((y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[-2]) / (x[-1] - x[-2]))

    def evaluate(at: Real) -> Real:
        within = inside(np.clip(at, x[0], x[-1]))
        return np.asarray(within + slopes[0] * np.minimum(at - x[0], 0) + slopes[1] * np.maximum(at - x[-1], 0))

    return evaluate


@dataclass(frozen=True)
class Response:
    """Calibrated responses by hypothesis (El, Mu, Pi, Ka, Pr); a hypothesis without enough tracks is absent.

    Attributes:
        tpc, tof: the responses.
        tracks: hypothesis → tracks with a TPC signal that there were to calibrate it on.
    """

    tpc: dict[str, Profile]
    tof: dict[str, Profile]
    tracks: dict[str, int]

    def tpc_nsigma(self, hypothesis: str, momentum: NDArray[np.float32], signal: NDArray[np.float32]) -> Real:
        """Return (dE/dx ÷ expected − 1) / relative resolution, shape (tracks,); NaN where dE/dx is missing."""
        p = momentum.astype(np.float64)
        own = self.tpc[hypothesis]
        return np.asarray((signal / np.exp(own.centre(p)) - 1.0) / own.width(p))

    def tof_nsigma(self, hypothesis: str, momentum: NDArray[np.float32], beta: NDArray[np.float32]) -> Real:
        """Return (1/β − expected) / resolution, shape (tracks,); NaN where β is missing or not positive."""
        p = momentum.astype(np.float64)
        own = self.tof[hypothesis]
        usable = np.where(beta > 0, beta, np.nan).astype(np.float64)
        difference = 1.0 / usable - inverse_beta(p, ALL_HYPOTHESES[hypothesis].mass)
        return np.asarray((difference - own.centre(p)) / own.width(p))


def calibrate(train: Split) -> Response:
    """Measure the responses on a labelled training sample (at most its first two million tracks).

    Args:
        train: needs the aux columns ``fP`` and ``fTPCSignal``; ``fBeta`` is used if it is there.
    """
    used = slice(0, min(len(train), _MAX_TRACKS))
    kind = np.abs(np.asarray(train.pdg[used]))
    momentum = np.asarray(train.column("fP")[used], np.float64)
    signal = np.asarray(train.column("fTPCSignal")[used], np.float64)
    beta = np.asarray(train.column("fBeta")[used], np.float64) if "fBeta" in train.aux_names else None
    tpc: dict[str, Profile] = {}
    tof: dict[str, Profile] = {}
    tracks: dict[str, int] = {}
    for hypothesis, particle in ALL_HYPOTHESES.items():
        own = (kind == particle.pdg) & (momentum > 0)
        mine = own & (signal > 0)
        tracks[hypothesis] = int(np.count_nonzero(mine))
        _keep(tpc, hypothesis, momentum[mine], np.log(signal[mine]))
        if beta is not None:
            mine = own & (beta > 0)
            _keep(tof, hypothesis, momentum[mine], 1.0 / beta[mine] - inverse_beta(momentum[mine], particle.mass))
    return Response(tpc, tof, tracks)


def _keep(into: dict[str, Profile], hypothesis: str, momentum: Real, values: Real) -> None:
    measured = profile(momentum, values)
    if measured is not None:
        into[hypothesis] = measured
