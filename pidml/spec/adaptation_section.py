"""The section about adapting networks to experimental data, which has no labels."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from pidml.spec.base import Counts, Real, Section, setting
from pidml.spec.data_sections import InputFiles, Share, refuse_twice


class Adaptation(Section):
    """Domain adaptation: networks are trained so that simulated and experimental tracks look alike inside them."""

    method: Literal["none", "dann", "cdan"] = setting(
        "none",
        "none; dann: a discriminator sees the network's last hidden layer; cdan: combined with its certainties",
    )
    files: InputFiles = setting((), "experimental files, as dataset.files; AO2D files or track tables without labels")
    require: Share = setting("all", "what must be obtained of these files: all, or a minimum fraction")
    coefficient: Real = setting(1.0, "largest weight of the discriminator's gradient, reversed", gt=0, le=1000)
    steepness: Real = setting(
        10.0, "γ of the weight's rise, 2/(1+exp(−γ·progress))−1; progress goes from 0 to 1 in training", gt=0, le=1000
    )
    hidden: Counts = setting((64, 64), "widths of the discriminator's hidden layers", min_length=1, max_length=16)
    fraction: Real = setting(
        0.5, "experimental part of an optimiser step's tracks; batch_size counts the simulated ones", gt=0, lt=1
    )
    entropy_weighting: bool = setting(False, "cdan: tracks that the network is sure of count up to twice")

    @property
    def active(self) -> bool:
        """Whether networks are adapted."""
        return self.method != "none"

    @model_validator(mode="after")
    def _something_to_adapt_to(self) -> Self:
        refuse_twice(self.files)
        if self.active and not self.files:
            raise ValueError(f"method: {self.method} needs experimental files under adaptation.files")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the settings that change a network; the files do so through the samples made of them."""
        if not self.active:
            return {"method": "none"}
        unused = {"entropy_weighting"} if self.method == "dann" else set()
        return self.model_dump(mode="json", exclude={"files", "require"} | unused)
