"""The Bayesian approach of ALICE: prior × detector response, combined over the detectors that saw a track.

ALICE Collaboration, Eur. Phys. J. Plus 131 (2016) 168, arXiv:1602.01392: the probability that a track is of species H
is C(H)·Π R(S|H) / Σ C·Π R, where R is the Gaussian response of a detector and C the abundance of the species, which is
estimated from the tracks themselves: from equal abundances on, it is replaced by the mean probability until it stays
the same. Here there is a prior for each charge and bin of transverse momentum; labels are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml import species
from pidml.data.prepared import PreparedDataset, Split
from pidml.evaluation.nsigma import Source, nsigma_source
from pidml.evaluation.response import ALL_HYPOTHESES, HYPOTHESES

Real = NDArray[np.float64]
#: Deviations beyond this many σ count as so many: a signal that was matched wrongly must not decide alone.
_RANGE = 5.0
#: Tracks that priors are estimated on at most: the first ones of the training sample (its order is random).
_PRIOR_TRACKS = 300_000
#: Fewest tracks of a charge and bin that give it a prior of its own; otherwise it has that of the charge.
_FEWEST = 200
_CONVERGED, _ITERATIONS = 1e-4, 500


@dataclass(frozen=True)
class Bayesian:
    """Probabilities from priors and detector responses.

    Attributes:
        source: where nσ comes from.
        hypotheses: species that are told apart (El, Mu, Pi, Ka, Pr as far as nσ is known).
        edges: of the bins of transverse momentum, GeV/c; tracks outside have the prior of the nearest bin.
        priors: float64 (2 charges, bins, hypotheses), negative charge first; add up to 1.
    """

    source: Source
    hypotheses: tuple[str, ...]
    edges: tuple[float, ...]
    priors: Real

    @property
    def description(self) -> str:
        """One sentence for captions."""
        return (
            f"priors × Gaussian responses of TPC and TOF for {len(self.hypotheses)} species (EPJ Plus 131 (2016) 168), "
            f"priors estimated from the training tracks without labels; nσ from {self.source.description}"
        )

    def predict(self, split: Split, rows: slice) -> NDArray[np.float32]:
        """Return the probability of each target species, float32 (tracks, 6); 0 for those of the other charge."""
        likelihood = _likelihood(self.source, self.hypotheses, split, rows)
        positive, cell = _cells(split, rows, self.edges)
        probability = _normalised(likelihood * self.priors[positive, cell])
        result = np.zeros((len(cell), len(species.TARGETS)), np.float32)
        for position, target in enumerate(species.TARGETS):
            own = species.by_name(target.name.removeprefix("anti"))
            column = next(index for index, name in enumerate(self.hypotheses) if ALL_HYPOTHESES[name] == own)
            right = positive == (target.sign > 0)
            result[right, position] = probability[right, column]
        return result


def bayesian(prepared: PreparedDataset, edges: Sequence[float]) -> Bayesian | None:
    """Return the Bayesian approach for a dataset, or None where nσ of π, K and p cannot be had.

    Args:
        prepared: its training sample gives the priors, and what :func:`nsigma_source` needs.
        edges: of the bins of transverse momentum that have a prior each, GeV/c.
    """
    source, train = nsigma_source(prepared), prepared.split("train")
    if source is None:
        return None
    rows = slice(0, min(len(train), _PRIOR_TRACKS))
    known = tuple(name for name in ALL_HYPOTHESES if source.tpc(name, train, slice(0, 1)) is not None)
    if not set(HYPOTHESES) <= set(known):
        return None
    positive, cell = _cells(train, rows, edges)
    likelihood = _likelihood(source, known, train, rows)
    priors = np.empty((2, len(edges) - 1, len(known)))
    for charge in (0, 1):
        own = np.flatnonzero(positive == charge)
        priors[charge] = estimated_prior(likelihood[own])
        for each in range(len(edges) - 1):
            mine = own[cell[own] == each]
            if len(mine) >= _FEWEST:
                priors[charge, each] = estimated_prior(likelihood[mine])
    return Bayesian(source, known, tuple(edges), priors)


def estimated_prior(likelihood: Real) -> Real:
    """Return the abundances that reproduce themselves as mean probabilities, (hypotheses,).

    Args:
        likelihood: of each track under each hypothesis, (tracks, hypotheses), up to a factor per track.
    """
    prior = np.full(likelihood.shape[1], 1.0 / likelihood.shape[1])
    for _ in range(_ITERATIONS if len(likelihood) else 0):
        new = _normalised(likelihood * prior).mean(axis=0)
        done = np.abs(new - prior).max() < _CONVERGED
        prior = new
        if done:
            break
    return prior


def _likelihood(source: Source, hypotheses: Sequence[str], split: Split, rows: slice) -> Real:
    """Return the product of the responses of the detectors that saw each track, (tracks, hypotheses), largest 1."""
    log = []
    for name in hypotheses:
        total = np.zeros(len(split.pdg[rows]))
        widths = source.log_width(name, split, rows)
        for deviation, width in zip(
            (source.tpc(name, split, rows), source.tof(name, split, rows)), widths, strict=True
        ):
            if deviation is not None:
                limited = np.clip(deviation.astype(np.float64), -_RANGE, _RANGE)
                total += np.where(np.isnan(deviation), 0.0, -0.5 * limited**2 - width)
        log.append(total)
    table = np.stack(log, axis=1)
    return np.asarray(np.exp(table - table.max(axis=1, keepdims=True)))


def _cells(split: Split, rows: slice, edges: Sequence[float]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return whether each track is positive (1, else 0), and its bin of transverse momentum."""
    pt, sign = np.asarray(split.column("fPt")[rows]), np.asarray(split.column("fSign")[rows])
    index = np.searchsorted(np.asarray(edges), pt, side="right") - 1
    return (sign > 0).astype(np.int64), np.clip(index, 0, len(edges) - 2)


def _normalised(table: Real) -> Real:
    return np.asarray(table / np.maximum(table.sum(axis=1, keepdims=True), 1e-300))
