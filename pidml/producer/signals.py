"""TOF signal and β as O2Physics makes them of the raw tables (``PIDResponseTOF.h`` and the task ``pidTOFbeta``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pidml.species import by_name

#: Speed of light in cm/ps.
LIGHT = 0.0299792458
#: Mass over charge in GeV/c², by the code of the mass hypothesis used in tracking (``o2::track::PID``): electron, muon,
#: pion, kaon, proton, deuteron, triton, ³He, ⁴He. Masses of the nuclei: CODATA 2018.
HYPOTHESIS_MASS = np.array(
    [
        *(by_name(name).mass for name in ("electron", "muon", "pion", "kaon", "proton")),
        1.87561294257,
        2.80892113298,
        2.80839160743 / 2,
        3.7273794066 / 2,
    ]
)
_HYPOTHESIS_SHIFT = np.uint32(28)

Array = NDArray[np.float64]


def tracking_hypothesis(flags: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the code of the mass hypothesis used in tracking: the top four bits of ``fFlags``."""
    return (flags.astype(np.uint32) >> _HYPOTHESIS_SHIFT).astype(np.int64)


def expected_time(length: Array, momentum: Array, mass: Array) -> Array:
    """Return the time of flight L·√(p² + m²)/(c·p) in ps.

    Args:
        length: path to TOF in cm, shape (tracks,).
        momentum: GeV/c.
        mass: GeV/c².
    """
    return np.asarray(length * np.sqrt(momentum**2 + mass**2) / (LIGHT * momentum))


def tof_signal(track_time: Array, flags: NDArray[np.uint32], length: Array, momentum: Array) -> Array:
    """Return the TOF signal in ps of tracks with TOF.

    Args:
        track_time: ``fTrackTime`` in ns: the signal minus the expected time of the hypothesis used in tracking.
        flags: ``fFlags``; a hypothesis that TOF does not know gives NaN.
        length: ``fLength`` in cm.
        momentum: ``fTOFExpMom`` in GeV/c.
    """
    code = tracking_hypothesis(flags)
    known = code < len(HYPOTHESIS_MASS)
    mass = np.where(known, HYPOTHESIS_MASS[np.where(known, code, 0)], np.nan)
    return 1000.0 * track_time + expected_time(length, momentum, mass)


def beta(signal: Array, event_time: Array, length: Array) -> Array:
    """Return β = L/((signal − event time)·c); NaN where that time is not positive.

    Args:
        signal: TOF signal in ps.
        event_time: time of the collision in ps.
        length: path to TOF in cm.
    """
    flight = signal - event_time
    return np.asarray(length / (np.where(flight > 0, flight, np.nan) * LIGHT))
