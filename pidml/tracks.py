"""The table of tracks: columns, units, features, detectors, and the two rules for what is missing.

This is the one place that knows them. A *missing* value is NaN everywhere inside pidml. On disk it may also be −999
(TOF in older files) or 0 (TRD pattern); :func:`normalise_missing` removes these encodings on reading. O2Physics hides
TOF and TRD below momentum thresholds when it evaluates a network; :func:`apply_momentum_limits` is that rule, applied
in training, export checks and evaluation alike.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Column:
    """A column of a track table: its name, NumPy dtype on disk, unit and meaning, and the detector that measures it."""

    name: str
    dtype: str
    unit: str
    meaning: str
    detector: str = ""


_TRAINING = (
    Column("fTPCSignal", "f4", "a.u.", "TPC dE/dx, minimum-ionising ≈ 50", "TPC"),
    Column("fTRDSignal", "f4", "a.u.", "TRD PID signal", "TRD"),
    Column("fTRDPattern", "u1", "", "bit pattern of TRD layers, 0 without TRD", "TRD"),
    Column("fTOFSignal", "f4", "ps", "TOF time", "TOF"),
    Column("fBeta", "f4", "", "v/c measured by TOF", "TOF"),
    Column("fP", "f4", "GeV/c", "momentum"),
    Column("fPt", "f4", "GeV/c", "transverse momentum"),
    Column("fPx", "f4", "GeV/c", "momentum, x component"),
    Column("fPy", "f4", "GeV/c", "momentum, y component"),
    Column("fPz", "f4", "GeV/c", "momentum, z component"),
    Column("fSign", "f4", "e", "sign of the charge"),
    Column("fX", "f4", "cm", "reference point, local x"),
    Column("fY", "f4", "cm", "reference point, local y"),
    Column("fZ", "f4", "cm", "reference point, z"),
    Column("fAlpha", "f4", "rad", "rotation of the local frame about z"),
    Column("fTrackType", "u1", "", "kind of track"),
    Column("fTPCNClsShared", "u1", "", "number of shared TPC clusters", "TPC"),
    Column("fDcaXY", "f4", "cm", "signed transverse distance of closest approach to the collision vertex"),
    Column("fDcaZ", "f4", "cm", "distance of closest approach along z"),
)
_TRUTH = (
    Column("fPdgCode", "i4", "", "PDG code of the matched simulated particle"),
    Column("fIsPhysicalPrimary", "u1", "", "1 for physical primaries"),
)
_MULTIPLICITY = tuple(
    Column(name, "f4", "", "multiplicity estimator")
    for name in (
        "fMultFV0A", "fMultFV0C", "fMultFV0M", "fMultFT0A", "fMultFT0C", "fMultFT0M", "fMultZNA", "fMultZNC",
        "fMultTracklets", "fMultTPC",
    )
)  # fmt: skip
_EMCAL = (
    Column("fTrackEtaEMCAL", "f4", "", "pseudorapidity extrapolated to the EMCAL"),
    Column("fTrackPhiEMCAL", "f4", "rad", "azimuth extrapolated to the EMCAL"),
)
HYPOTHESES = ("El", "Mu", "Pi", "Ka", "Pr")
_HYPOTHESIS_COLUMNS = tuple(
    Column(pattern.format(hypothesis), "f4", unit, f"{meaning}, hypothesis {hypothesis}", pattern[1:4].upper())
    for pattern, unit, meaning in (
        ("fTPCNSigma{}", "σ", "deviation of the TPC signal"),
        ("fTPCExpSigma{}", "a.u.", "expected TPC resolution"),
        ("fTpcExpSignalDiff{}", "a.u.", "TPC signal minus expectation"),
        ("fTOFNSigma{}", "σ", "deviation of the TOF time"),
        ("fTOFExpSigma{}", "ps", "expected TOF resolution"),
        ("fTofExpSignalDiff{}", "ps", "TOF time minus expectation"),
    )
    for hypothesis in HYPOTHESES
)

#: Columns of ``O2pidtracksmcml``, in its order; ``O2pidtracksdataml`` lacks the last two.
TRAINING_COLUMNS: tuple[Column, ...] = _TRAINING + _TRUTH
#: Columns of ``O2pidtracksmc``; ``O2pidtracksdata`` lacks the two truth columns.
FULL_COLUMNS: tuple[Column, ...] = _MULTIPLICITY + _EMCAL + _TRAINING + _HYPOTHESIS_COLUMNS + _TRUTH
COLUMNS: dict[str, Column] = {column.name: column for column in FULL_COLUMNS}
TRUTH_COLUMNS: tuple[str, ...] = tuple(column.name for column in _TRUTH)
#: Spelling in older files → spelling used here.
OLD_NAMES: dict[str, str] = {f"fTPCExpSignalDiff{h}": f"fTpcExpSignalDiff{h}" for h in HYPOTHESES} | {
    f"fTOFExpSignalDiff{h}": f"fTofExpSignalDiff{h}" for h in HYPOTHESES
}

#: Trees that hold track tables → (simulation?, full table?).
TREES: dict[str, tuple[bool, bool]] = {
    "O2pidtracksmcml": (True, False),
    "O2pidtracksdataml": (False, False),
    "O2pidtracksmc": (True, True),
    "O2pidtracksdata": (False, True),
}

#: Features of the published networks, in the order in which O2Physics passes them.
FEATURES: tuple[str, ...] = (
    "fTPCSignal", "fTRDPattern", "fTOFSignal", "fBeta", "fP", "fPx", "fPy", "fPz", "fSign", "fX", "fY", "fZ", "fAlpha",
    "fTPCNClsShared", "fDcaXY", "fDcaZ",
)  # fmt: skip
#: Features that are standardised to mean 0 and standard deviation 1; the others enter raw.
STANDARDISED: tuple[str, ...] = (
    "fTPCSignal", "fTOFSignal", "fBeta", "fX", "fY", "fZ", "fAlpha", "fTPCNClsShared", "fDcaXY", "fDcaZ",
)  # fmt: skip

_OLD_MISSING = np.float32(-999.0)
_TOF_COLUMNS = ("fTOFSignal", "fBeta")
_TRD_COLUMNS = ("fTRDSignal", "fTRDPattern")


class Missing(IntFlag):
    """Which detectors gave nothing for a track; the value is the track's *missing pattern*."""

    NOTHING = 0
    TOF = 1
    TRD = 2


#: Detector that may be missing → the columns that it gives.
DETECTOR_COLUMNS: dict[Missing, tuple[str, ...]] = {Missing.TOF: _TOF_COLUMNS, Missing.TRD: _TRD_COLUMNS}
#: Missing pattern → name used in tables, plots and file names.
PATTERN_NAMES: dict[int, str] = {0: "complete", 1: "no-tof", 2: "no-trd", 3: "no-trd-no-tof"}


@dataclass(frozen=True)
class MomentumLimits:
    """Momenta (GeV/c) below which O2Physics hides a detector from a network. Defaults: those of ``PidONNXModel``."""

    tof: float = 0.5
    trd: float = 0.8


def normalise_missing(columns: MutableMapping[str, Array]) -> None:
    """Replace, in place, every on-disk encoding of "missing" by NaN.

    Args:
        columns: column name → float32 array of shape (tracks,); absent columns are left out.
    """
    for name, values in columns.items():
        if name in (*_TOF_COLUMNS, "fTRDSignal") or name.startswith("fTOFNSigma"):
            values[values == _OLD_MISSING] = np.nan
        elif name == "fTRDPattern":
            values[values == 0] = np.nan


def apply_momentum_limits(columns: MutableMapping[str, Array], momentum: Array, limits: MomentumLimits) -> None:
    """Hide, in place, TOF and TRD values of tracks below the momentum limits, as O2Physics does when it evaluates.

    Args:
        columns: column name → float32 array of shape (tracks,), NaN for missing.
        momentum: ``fP`` of the same tracks, GeV/c.
        limits: the thresholds; a track at the threshold keeps its values.
    """
    for names, limit in ((_TOF_COLUMNS, limits.tof), (_TRD_COLUMNS, limits.trd)):
        hidden = momentum < np.float32(limit)
        for name in names:
            if name in columns:
                columns[name][hidden] = np.nan


def missing_pattern(columns: Mapping[str, Array]) -> NDArray[np.uint8]:
    """Return each track's :class:`Missing` pattern.

    Args:
        columns: must hold at least one column; a detector none of whose columns is there counts as present.

    Returns:
        uint8 array of shape (tracks,).
    """
    size = len(next(iter(columns.values())))
    pattern = np.zeros(size, np.uint8)
    for flag, names in DETECTOR_COLUMNS.items():
        there = [name for name in names if name in columns]
        if there:
            pattern[np.any([np.isnan(columns[name]) for name in there], axis=0)] |= np.uint8(flag)
    return pattern


def feature_pattern(features: Array, names: Sequence[str]) -> NDArray[np.uint8]:
    """Return the missing pattern of each row of a ``(tracks, features)`` matrix whose columns are called ``names``."""
    return missing_pattern({name: features[:, index] for index, name in enumerate(names)})
