"""Labels: which of the species to be identified a track is, and checks that there is something to learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pidml.data.prepared import PreparedDataset, Split, rows_of
from pidml.errors import NoLabels, NoTracks, SpeciesAbsent
from pidml.species import by_name


def class_indices(pdg: NDArray[np.int32], species: Sequence[str]) -> NDArray[np.int64]:
    """Return each track's position in ``species``, ``len(species)`` for every other particle; shape (tracks,)."""
    result = np.full(len(pdg), len(species), np.int64)
    for index, name in enumerate(species):
        result[pdg == by_name(name).pdg] = index
    return result


def check_labels(prepared: PreparedDataset, species: Sequence[str]) -> None:
    """Make sure that every species has examples, and something else has too, where networks are fitted and judged.

    Raises:
        NoLabels: the data is experimental.
        NoTracks: a sample is empty.
        SpeciesAbsent: a species has no example, or there are no other tracks.
    """
    if not prepared.simulation:
        raise NoLabels(
            f"{prepared.path}: experimental data has no labels to train on",
            "train on simulation (dataset.simulation: true); to adapt to these files name them under adaptation.files",
        )
    for name in prepared.labelled:
        _check(prepared.path, prepared.split(name), species)


def _check(path: Path, sample: Split, species: Sequence[str]) -> None:
    if len(sample) == 0:
        raise NoTracks(f"{path}: the {sample.title} is empty", "give more tracks or loosen the cuts")
    for which, count in zip(species, species_counts(sample, species), strict=True):
        if count == 0:
            raise SpeciesAbsent(
                f"{path}: no {which} among the {len(sample)} tracks of the {sample.title}",
                "give more tracks, loosen the cuts, or check that the simulation contains this species",
            )
        if count == len(sample):
            raise SpeciesAbsent(
                f"{path}: all {len(sample)} tracks of the {sample.title} are {which}",
                "a network needs other particles to tell them from; check the input files and cuts",
            )


def species_counts(sample: Split, species: Sequence[str]) -> list[int]:
    """Return the number of tracks of each species, read in chunks."""
    counts = np.zeros(len(species) + 1, np.int64)
    for rows in sample.chunks():
        counts += np.bincount(class_indices(rows_of(sample.pdg, rows), species), minlength=len(counts))
    return [int(count) for count in counts[:-1]]
