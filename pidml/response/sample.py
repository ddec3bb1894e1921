"""Tracks that a response is learned from: labelled ones of the training sample, and of no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pidml.data.prepared import PreparedDataset, rows_of
from pidml.errors import NoLabels, NoTracks, SpeciesAbsent
from pidml.models import Inputs
from pidml.response.network import TpcResponse, ingredients
from pidml.spec.response_section import Response
from pidml.species import TARGET_NAMES, by_name

#: Examples without which a hypothesis cannot be learned.
LEAST_TRACKS = 200
_ROWS = 65_536


@dataclass(frozen=True)
class OwnTracks:
    """Tracks of the species that are hypotheses, in the random order of the sample.

    Attributes:
        network_inputs: float32 (tracks, inputs), see :meth:`TpcResponse.network_inputs`.
        ratio: float32 (tracks,), signal ÷ Bethe–Bloch under the track's own species.
        species: int64 (tracks,), position of the track's species among the hypotheses.
        momentum: float32 (tracks,), GeV/c.
        slope: float32 (tracks,), pz/pT; NaN if the features do not tell.
        signal: float32 (tracks,), TPC signal.
    """

    network_inputs: Tensor
    ratio: Tensor
    species: Tensor
    momentum: Tensor
    slope: Tensor
    signal: Tensor

    def __len__(self) -> int:
        return len(self.species)

    def part(self, rows: slice | Tensor) -> OwnTracks:
        """Return some of the tracks, by a slice or by their numbers."""
        return OwnTracks(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def hypothesis(pdg: NDArray[np.int32], species: Sequence[str]) -> NDArray[np.int64]:
    """Return each track's position in ``species``, both charges together, −1 for every other particle."""
    result = np.full(len(pdg), -1, np.int64)
    for index, name in enumerate(species):
        result[np.abs(pdg) == abs(by_name(name).pdg)] = index
    return result


def learnable(prepared: PreparedDataset, settings: Response) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the hypotheses that can be learned, and the number of usable examples of every one asked for.

    An example is usable if it lacks no feature that the response is made of. A lepton with too few is left out; a
    hadron, which is to be identified, is an error, and so is it if nothing is left.

    Raises:
        NoLabels: the data is experimental.
        NoTracks: the training sample is empty, or all its tracks lack a feature.
        MissingColumn: the features do not hold what a response is made of.
        SpeciesAbsent: a hadron, or every hypothesis, has too few examples.
    """
    if not prepared.simulation:
        raise NoLabels(
            f"{prepared.path}: experimental data has no labels to learn the TPC response of",
            "use simulation (dataset.simulation: true), or leave tpc_nsigma out of dataset.derive",
        )
    train = prepared.split("train")
    if len(train) == 0:
        raise NoTracks(f"{prepared.path}: the training sample is empty", "give more tracks or loosen the cuts")
    read = min(len(train), settings.max_tracks)
    counts, lacking = _usable(prepared, settings, read)
    for name in settings.species:
        if counts[name] < LEAST_TRACKS and (name in TARGET_NAMES or not max(counts.values()) >= LEAST_TRACKS):
            raise SpeciesAbsent(
                f"{prepared.path}: {counts[name]} tracks of {name} that lack nothing, among the {read} of the training "
                f"sample that the TPC response is learned from; {LEAST_TRACKS} are needed{lacking}",
                "give more tracks, loosen the cuts, raise response.max_tracks, or leave it out of response.species",
            )
    return tuple(name for name in settings.species if counts[name] >= LEAST_TRACKS), counts


def _usable(prepared: PreparedDataset, settings: Response, read: int) -> tuple[dict[str, int], str]:
    """Count tracks of each hypothesis that lack nothing; say which features the others lack.

    Raises:
        MissingColumn: see :func:`pidml.response.network.ingredients`.
        NoTracks: all labelled tracks lack a feature.
    """
    train, names = prepared.split("train"), ingredients(Inputs.of(prepared.scaling))
    columns = [prepared.features.index(name) for name in names]
    counted = np.zeros(len(settings.species), np.int64)
    labelled, missing = 0, np.zeros(len(names), np.int64)
    for start in range(0, read, _ROWS):
        rows = slice(start, min(start + _ROWS, read))
        positions = hypothesis(rows_of(train.pdg, rows), settings.species)
        lacks = np.isnan(rows_of(train.features, rows)[:, columns][positions >= 0])
        counted += np.bincount(positions[positions >= 0][~lacks.any(axis=1)], minlength=len(counted))
        missing += np.count_nonzero(lacks, axis=0)
        labelled += len(lacks)
    shares = dict(zip(names, missing / max(labelled, 1), strict=True))
    if labelled and (empty := [name for name, share in shares.items() if share == 1]):
        raise NoTracks(
            f"{prepared.path}: {', '.join(empty)} missing for all {labelled} tracks that the TPC response is learned "
            "from",
            f"leave {', '.join(empty)} out of preparation.features, or tpc_nsigma out of dataset.derive",
        )
    lacking = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share > 0)
    given: dict[str, int] = {name: int(number) for name, number in zip(settings.species, counted, strict=True)}
    return given, f" (missing values: {lacking})" if lacking else ""


@torch.no_grad()
def own_tracks(prepared: PreparedDataset, response: TpcResponse, max_tracks: int) -> OwnTracks:
    """Return the labelled tracks of the training sample's first ``max_tracks``; those that lack a value left out."""
    train, scaling = prepared.split("train"), prepared.scaling
    inputs = Inputs.of(scaling)
    needed = [inputs.index(name) for name in response.ingredients[0]]
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, min(len(train), max_tracks), _ROWS):
        rows = slice(start, min(start + _ROWS, max_tracks))
        species = torch.from_numpy(hypothesis(np.asarray(train.pdg[rows]), response.species))
        standardised = torch.from_numpy(scaling.apply(np.asarray(train.features[rows])))
        usable = (species >= 0) & ~torch.isnan(standardised[:, needed]).any(dim=1)
        known, species = torch.nan_to_num(standardised[usable]), species[usable]
        own = response.ratios(known).gather(1, species[:, None])[:, 0]
        value = response.measured(known)
        p = response.measured.p(value)[:, 0]
        slope = value["fPz"][:, 0] / response.measured.pt(value)[:, 0] if response.has_angle else p * torch.nan
        parts.append((response.network_inputs(known), own, species, p, slope, value["fTPCSignal"][:, 0]))
    return OwnTracks(*(torch.cat(column) for column in zip(*parts, strict=True)))
