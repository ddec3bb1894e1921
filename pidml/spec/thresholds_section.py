"""The section about the certainty from which a track is accepted."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pidml.spec.base import Real, Reals, Section, setting

#: Fewest tracks of a species that give a bin, or all bins with fewer together, a threshold of its own.
FEWEST_IN_BIN = 50


class Thresholds(Section):
    """What thresholds are chosen for, on the validation sample."""

    mode: Literal["f1", "purity", "efficiency"] = setting(
        "f1", "f1: largest F1; purity: most tracks at the target purity; efficiency: purest at the target efficiency"
    )
    target: Real = setting(0.9, "purity, efficiency: the value to reach", gt=0, lt=1)
    per_pt: bool = setting(
        False, "also a threshold for every bin of transverse momentum that has 50 tracks of the species or more"
    )
    pt_edges: Annotated[Reals, Field(min_length=2)] = setting(
        (0.0, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0),
        "edges of these bins; bins with fewer tracks, and tracks outside, have one threshold together",
        "GeV/c",
    )

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        if any(low >= high for low, high in zip(self.pt_edges, self.pt_edges[1:], strict=False)):
            raise ValueError("pt_edges must increase")
        return self

    @property
    def rule(self) -> str:
        """What the thresholds in use are chosen for, in words."""
        where = f" in each bin of transverse momentum with {FEWEST_IN_BIN} or more tracks of the species"
        return self.overall + (where if self.per_pt else "")

    @property
    def overall(self) -> str:
        """What the thresholds for all momenta together are chosen for, in words."""
        return "largest F1" if self.mode == "f1" else f"{self.mode} ≥ {self.target:g}"

    def identity(self) -> dict[str, Any]:
        """Return the settings that the mode reads."""
        unused = ({"target"} if self.mode == "f1" else set()) | (set() if self.per_pt else {"pt_edges"})
        return self.model_dump(mode="json", exclude=unused)
