"""Tracks that the global-track selection must drop: what fails, how often, and how it looks in raw tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pidml.simulation import response
from pidml.simulation.generate import SimulatedTracks

Array = NDArray[np.float64]

#: Reason for which a track is dropped → such tracks per selected track.
REASONS: dict[str, float] = {
    "none": 0.0,
    "eta": 0.15,
    "pt": 0.02,
    "dca_xy": 0.08,
    "dca_z": 0.02,
    "crossed_rows": 0.06,
    "crossed_over_findable": 0.02,
    "tpc_chi2": 0.01,
    "its_chi2": 0.01,
    "inner_barrel": 0.04,
    "no_its": 0.08,
    "no_tpc": 0.06,
    "no_collision": 0.03,
    "no_particle": 0.01,
}
REASON = {name: index for index, name in enumerate(REASONS)}


@dataclass
class Quality:
    """What the selection looks at besides momentum and distances; arrays of shape (tracks,)."""

    findable: NDArray[np.uint8]
    found: NDArray[np.uint8]
    crossed: NDArray[np.uint8]
    tpc_chi2: NDArray[np.float32]
    its_chi2: NDArray[np.float32]
    its_layers: NDArray[np.uint8]  # bit pattern of the seven layers, innermost first


def draw_reasons(rng: Generator, selected: int) -> NDArray[np.int8]:
    """Return a reason per track (0: selected) in random order, with exactly ``selected`` zeros."""
    counts = [selected, *(rng.poisson(rate * selected) for name, rate in REASONS.items() if name != "none")]
    reasons = np.repeat(np.arange(len(REASONS), dtype=np.int8), counts)
    rng.shuffle(reasons)
    return reasons


def displace(rng: Generator, tracks: SimulatedTracks, reasons: NDArray[np.int8]) -> None:
    """Move, in place, momenta and distances of tracks that fail by them out of the selection's range.

    Only ``truth`` changes; margins are far above the rounding to float32.
    """
    truth = tracks.truth

    def rows(name: str) -> NDArray[np.intp]:
        return np.flatnonzero(reasons == REASON[name])

    steep, slow = rows("eta"), rows("pt")
    truth["eta"][steep] = np.sign(truth["eta"][steep]) * rng.uniform(0.801, 1.2, len(steep))
    truth["pt"][slow] = rng.uniform(0.06, 0.0999, len(slow))
    truth["p"] = truth["pt"] * np.cosh(truth["eta"])
    far, along = rows("dca_xy"), rows("dca_z")
    cut = response.dca_xy_cut(truth["pt"][far])
    truth["dca_xy"][far] = _away(rng, cut, 2.5, len(far))
    truth["dca_z"][along] = _away(rng, response.DCA_Z_CUT, 3.0, len(along))


def _away(rng: Generator, cut: Array | float, reach: float, size: int) -> Array:
    """Return distances of either sign beyond ``cut``, up to ``cut`` + ``reach``."""
    return np.asarray(rng.choice([-1.0, 1.0], size) * (cut + 0.001 + reach * rng.random(size)))


def quality(rng: Generator, clusters: NDArray[np.integer], reasons: NDArray[np.int8]) -> Quality:
    """Return cluster counts, χ² and ITS layers that pass the selection, or fail it for the reason given."""
    size = len(clusters)
    found = clusters.astype(np.int64)
    crossed = np.minimum(found + rng.integers(0, 8, size), 159)
    findable = np.minimum(crossed + rng.integers(0, 12, size), 159)
    few, ratio = reasons == REASON["crossed_rows"], reasons == REASON["crossed_over_findable"]
    crossed[few] = rng.integers(30, 70, int(few.sum()))
    findable[few] = np.minimum(crossed[few] + rng.integers(0, 6, int(few.sum())), 159)
    crossed[ratio] = rng.integers(70, 100, int(ratio.sum()))
    findable[ratio] = np.floor(crossed[ratio] / 0.75).astype(np.int64)
    tpc_chi2 = np.minimum(rng.gamma(8.0, 0.17, size), 3.9)
    its_chi2 = np.minimum(rng.gamma(2.0, 2.0, size), 35.0)
    tpc_chi2[reasons == REASON["tpc_chi2"]] = (
        4.0 + rng.exponential(1.0, int((reasons == REASON["tpc_chi2"]).sum())) + 0.01
    )
    its_chi2[reasons == REASON["its_chi2"]] = 36.01 + rng.exponential(9.0, int((reasons == REASON["its_chi2"]).sum()))
    layers = _its_layers(rng, reasons)
    none = reasons == REASON["no_tpc"]
    for counts in (found, crossed, findable, tpc_chi2):
        counts[none] = 0
    found = np.minimum(found, crossed)
    its_chi2[layers == 0] = -1
    return Quality(
        findable.astype(np.uint8), found.astype(np.uint8), crossed.astype(np.uint8),
        tpc_chi2.astype(np.float32), its_chi2.astype(np.float32), layers,
    )  # fmt: skip


def _its_layers(rng: Generator, reasons: NDArray[np.int8]) -> NDArray[np.uint8]:
    layers = rng.random((len(reasons), 7)) < 0.97
    layers[:, 0] |= ~layers[:, :3].any(axis=1)
    layers[reasons == REASON["inner_barrel"], :3] = False
    layers[reasons == REASON["inner_barrel"], 3:] = True
    layers[reasons == REASON["no_its"]] = False
    return np.packbits(layers, axis=1, bitorder="little")[:, 0]


def summary(reasons: NDArray[np.int8]) -> dict[str, int]:
    """Return the number of tracks per reason; ``none`` are the selected ones."""
    counts: dict[str, Any] = dict(zip(REASONS, np.bincount(reasons, minlength=len(REASONS)).tolist(), strict=True))
    return counts
