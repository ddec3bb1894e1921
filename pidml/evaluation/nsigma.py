"""The traditional selection: a track is accepted as X if its signals lie within nσ of X's expectation.

Up to ``nsigma_combine_above`` in momentum, and for tracks without TOF, the deviation is |nσ_TPC|; above, for tracks
with TOF, √(nσ_TPC² + nσ_TOF²). Tracks of the wrong charge sign are rejected. A track may be accepted as several
species. Deviations are those of the table where it has the ``f…NSigma…`` columns, otherwise they are counted from a
response calibrated on the labelled training sample (:mod:`pidml.evaluation.response`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pidml import species
from pidml.data.prepared import PreparedDataset, Split
from pidml.evaluation.response import FEWEST_TRACKS, HYPOTHESES, Response, calibrate
from pidml.spec.model_sections import Evaluation

Deviations = NDArray[np.float32]
_HYPOTHESIS_OF = {particle.name: hypothesis for hypothesis, particle in HYPOTHESES.items()}


class Source(Protocol):
    """Where nσ comes from."""

    @property
    def description(self) -> str:
        """Where from, for captions."""

    def tpc(self, hypothesis: str, split: Split, rows: slice) -> Deviations | None:
        """Return nσ_TPC, shape (tracks,), or None if it cannot be had for this hypothesis."""

    def tof(self, hypothesis: str, split: Split, rows: slice) -> Deviations | None:
        """Return nσ_TOF, NaN for tracks without TOF, or None."""

    def log_width(self, hypothesis: str, split: Split, rows: slice) -> tuple[Deviations | float, Deviations | float]:
        """Return ln σ of TPC and of TOF up to a constant common to all hypotheses, (tracks,) or a number."""

    def lacking(self) -> dict[str, str]:
        """Return of π, K and p the hypotheses without nσ → why, and what is needed."""


class _TableColumns:
    """nσ as the table gives it."""

    description = "nσ columns of the track table"

    def tpc(self, hypothesis: str, split: Split, rows: slice) -> Deviations | None:
        name = f"fTPCNSigma{hypothesis}"
        return np.asarray(split.column(name)[rows]) if name in split.aux_names else None

    def tof(self, hypothesis: str, split: Split, rows: slice) -> Deviations | None:
        name = f"fTOFNSigma{hypothesis}"
        if name not in split.aux_names:
            return None
        values = np.asarray(split.column(name)[rows])
        # −999 is how tables write "no TOF" in nσ columns; readers turn it into NaN, a second look costs nothing.
        return np.where(values > -900, values, np.float32(np.nan))

    def log_width(self, hypothesis: str, split: Split, rows: slice) -> tuple[float, float]:  # noqa: ARG002
        return 0.0, 0.0  # the table has no resolutions: all hypotheses are taken to have the same

    def lacking(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class _Calibrated:
    """nσ from the response of the training sample."""

    response: Response
    description: str = "response calibrated on the labelled training sample"

    def tpc(self, hypothesis: str, split: Split, rows: slice) -> Deviations | None:
        if hypothesis not in self.response.tpc:
            return None
        momentum, signal = split.column("fP")[rows], split.column("fTPCSignal")[rows]
        return self.response.tpc_nsigma(hypothesis, momentum, signal).astype(np.float32)

    def tof(self, hypothesis: str, split: Split, rows: slice) -> Deviations | None:
        if hypothesis not in self.response.tof:
            return None
        return self.response.tof_nsigma(hypothesis, split.column("fP")[rows], split.column("fBeta")[rows]).astype(
            np.float32
        )

    def log_width(self, hypothesis: str, split: Split, rows: slice) -> tuple[Deviations, Deviations | float]:
        p = np.asarray(split.column("fP")[rows], np.float64)
        tpc, tof = self.response.tpc[hypothesis], self.response.tof.get(hypothesis)
        widths = np.asarray(tpc.centre(p) + np.log(tpc.width(p)), np.float32)
        return widths, np.log(tof.width(p)).astype(np.float32) if tof else 0.0

    def lacking(self) -> dict[str, str]:
        return {
            each: f"{self.response.tracks[each]} training tracks of both charges with dE/dx are too few to calibrate "
            f"it on, at least {FEWEST_TRACKS}, spread over momentum, are needed"
            for each in HYPOTHESES
            if each not in self.response.tpc
        }


@dataclass(frozen=True)
class NSigmaSelection:
    """The traditional selection, ready to be applied.

    Attributes:
        limit: largest deviation accepted.
        combine_above: momentum (GeV/c) above which TPC and TOF are combined.
        source: where nσ comes from.
    """

    limit: float
    combine_above: float
    source: Source

    @property
    def description(self) -> str:
        """One sentence for captions."""
        return (
            f"|nσ| < {self.limit:g}: TPC alone, with TOF above p = {self.combine_above:g} GeV/c where there is "
            f"TOF; wrong sign rejected; nσ from {self.source.description}"
        )

    @property
    def undefined(self) -> dict[str, str]:
        """Target species that cannot be selected because their nσ is not known → why."""
        lacking = self.source.lacking()
        own = {target.name: _HYPOTHESIS_OF[target.name.removeprefix("anti")] for target in species.TARGETS}
        return {name: lacking[hypothesis] for name, hypothesis in own.items() if hypothesis in lacking}

    def deviations(self, split: Split, rows: slice) -> Deviations:
        """Return each track's deviation from each target species, shape (tracks, 6), float32, in standard deviations.

        +inf for the wrong sign, a missing TPC signal, or a species whose response could not be calibrated.
        """
        momentum = np.asarray(split.column("fP")[rows])
        sign = np.asarray(split.column("fSign")[rows])
        by_hypothesis = {each: self._combined(each, split, rows, momentum) for each in HYPOTHESES}
        result = np.full((len(momentum), len(species.TARGETS)), np.inf, np.float32)
        for position, target in enumerate(species.TARGETS):
            distance = by_hypothesis[_HYPOTHESIS_OF[target.name.removeprefix("anti")]]
            right = (sign * target.sign > 0) & ~np.isnan(distance)
            result[right, position] = distance[right]
        return result

    def _combined(self, hypothesis: str, split: Split, rows: slice, momentum: Deviations) -> Deviations:
        tpc, tof = self.source.tpc(hypothesis, split, rows), self.source.tof(hypothesis, split, rows)
        if tpc is None:
            return np.full(len(momentum), np.inf, np.float32)
        distance: Deviations = np.abs(tpc)
        if tof is not None:
            both = (momentum > self.combine_above) & ~np.isnan(tof)
            distance = np.where(both, np.hypot(tpc, np.where(both, tof, 0)), distance)
        return distance


def nsigma_source(prepared: PreparedDataset) -> Source | None:
    """Return where nσ of a dataset comes from, or None if it cannot be had.

    Needed are ``fP``, ``fSign`` and either the TPC nσ columns or, on labelled data, ``fTPCSignal``.
    """
    names = set(prepared.meta["aux"])
    if not {"fP", "fSign"} <= names:
        return None
    if {f"fTPCNSigma{hypothesis}" for hypothesis in HYPOTHESES} <= names:
        return _TableColumns()
    if prepared.simulation and "fTPCSignal" in names:
        return _Calibrated(calibrate(prepared.split("train")))
    return None


def nsigma_selection(prepared: PreparedDataset, settings: Evaluation) -> NSigmaSelection | None:
    """Return the traditional selection for a dataset, or None if the dataset lacks what :func:`nsigma_source` needs."""
    source = nsigma_source(prepared)
    return None if source is None else NSigmaSelection(settings.nsigma, settings.nsigma_combine_above, source)
