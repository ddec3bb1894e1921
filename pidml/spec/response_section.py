"""Section about the TPC response: what the derived features of ``dataset.derive: [tpc_nsigma]`` are learned with."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pidml.spec.base import Counts, Real, Section, list_as_tuple, setting

Hypothesis = Literal["electron", "muon", "pion", "kaon", "proton"]


class Response(Section):
    """How the expected TPC signal and its resolution are learned. Read only where something derived needs it."""

    species: Annotated[tuple[Hypothesis, ...], BeforeValidator(list_as_tuple), Field(min_length=1)] = setting(
        ("electron", "muon", "pion", "kaon", "proton"),
        "hypotheses, both charges together; leptons as far as labels exist",
    )
    hidden: Counts = setting((32, 32), "widths of the hidden layers", min_length=1, max_length=8)
    epochs: int = setting(10, "passes over the tracks", ge=1, le=1000)
    batch_size: int = setting(1024, "tracks per optimiser step", "tracks", ge=1, le=1_048_576)
    learning_rate: Real = setting(0.02, "largest learning rate (one-cycle)", gt=0, le=1)
    outliers: Real = setting(
        0.01, "part of the tracks whose signal is taken to be anything; 0 makes every track count fully", ge=0, le=0.5
    )
    held_out: Real = setting(
        0.2, "part of the tracks kept from the fit: half calibrate the pulls, half are for the figures", ge=0.02, le=0.8
    )
    max_tracks: int = setting(1_000_000, "tracks of the training sample that are read", "tracks", ge=1000)

    @model_validator(mode="after")
    def _no_species_twice(self) -> Self:
        if len(set(self.species)) != len(self.species):
            raise ValueError("species: a hypothesis stands twice")
        return self
