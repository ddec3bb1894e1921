"""The selection of global tracks that the producer of O2Physics applies (``TrackSelectionDefaults``), cut by cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pidml.data.cuts import TOLERATED_BAD_PART
from pidml.errors import BadValues
from pidml.producer.ao2d import RawFrame

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]

PT_MIN = 0.1  # GeV/c
ABS_ETA_MAX = 0.8
CROSSED_ROWS_MIN = 70
CROSSED_OVER_FINDABLE_MIN = 0.8
TPC_CHI2_MAX = 4.0  # per cluster
ITS_CHI2_MAX = 36.0  # per cluster
ABS_DCA_Z_MAX = 2.0  # cm

#: What can remove a track, in the order in which it is counted.
CUTS: tuple[str, ...] = (
    "no_collision", "no_particle", "bad_values", "event_not_drawn", "pt", "eta", "tpc_crossed_rows",
    "tpc_crossed_over_findable", "tpc_chi2", "its_chi2", "its_inner_barrel", "dca_z", "dca_xy", "track_not_drawn",
)  # fmt: skip


def dca_xy_max(pt: Array) -> Array:
    """Return the largest |DCAxy| in cm of tracks with transverse momentum ``pt`` in GeV/c: 0.0105 + 0.035/pT^1.1."""
    return 0.0105 + 0.035 / pt**1.1


def quality(raw: RawFrame) -> list[tuple[str, Mask]]:
    """Return the cuts that need no propagation: name and which tracks pass, shape (tracks,)."""
    columns = raw.tracks
    with np.errstate(divide="ignore"):
        pt = 1.0 / np.abs(columns["fSigned1Pt"].astype(np.float64))
    findable = columns["fTPCNClsFindable"].astype(np.int32)
    crossed = findable - columns["fTPCNClsFindableMinusCrossedRows"]
    return [
        ("pt", pt > PT_MIN),
        ("eta", np.abs(np.arcsinh(columns["fTgl"].astype(np.float64))) < ABS_ETA_MAX),
        ("tpc_crossed_rows", crossed >= CROSSED_ROWS_MIN),
        ("tpc_crossed_over_findable", crossed >= CROSSED_OVER_FINDABLE_MIN * findable),
        ("tpc_chi2", columns["fTPCChi2NCl"] < TPC_CHI2_MAX),
        ("its_chi2", columns["fITSChi2NCl"] < ITS_CHI2_MAX),
        ("its_inner_barrel", columns["inner_barrel"]),
    ]


def distances(pt: Array, dca_xy: Array, dca_z: Array) -> list[tuple[str, Mask]]:
    """Return the cuts on the distances (cm) to the collision vertex; a distance that is no number does not pass."""
    return [("dca_z", np.abs(dca_z) < ABS_DCA_Z_MAX), ("dca_xy", np.abs(dca_xy) < dca_xy_max(pt))]


def apply(cuts: Iterable[tuple[str, Mask]], left: Mask, removed: Counter[str]) -> Mask:
    """Apply cuts one after the other to the tracks ``left`` and count what each removes of what was left before it."""
    for name, passing in cuts:
        after = left & passing
        removed[name] += int(np.count_nonzero(left)) - int(np.count_nonzero(after))
        left = after
    return left


def require_few_bad(path: Path, bad: int, read: int) -> None:
    """Check that not too many tracks of an AO2D file have impossible values.

    Args:
        path: the file.
        bad: its tracks that the cut ``bad_values`` removed.
        read: its tracks.

    Raises:
        BadValues: there are more than are tolerated.
    """
    if bad > TOLERATED_BAD_PART * read:
        raise BadValues(
            f"{path}: {bad} of {read} tracks have parameters that are not numbers or cannot be"
            f" (fX … fSigned1Pt of O2track…, fFlags, fTrackTime or fLength of O2trackextra…);"
            f" {TOLERATED_BAD_PART:.2%} are tolerated",
            "fetch the file again, or leave it out of dataset.files",
        )
