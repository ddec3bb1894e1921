"""The section about replicas: the same training again, with other seeds and without parts of the tracks."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from pidml.spec.base import Section, setting


class Replicas(Section):
    """How often a training is repeated to learn how far its results are due to chance. No other step reads this."""

    seeds: int = setting(1, "trainings that differ by their seed, the job's own among them; 1: no others", ge=1, le=100)
    folds: int = setting(
        0,
        "parts of the training and validation tracks; one training without each, judged on it; 0: none, or 2 to 100",
        ge=0,
        le=100,
    )

    @property
    def active(self) -> bool:
        """Whether the job asks for trainings besides its own."""
        return self.seeds > 1 or self.folds > 0

    @model_validator(mode="after")
    def _something_left_to_train_on(self) -> Self:
        if self.folds == 1:
            raise ValueError("folds = 1: nothing would be left to train on; allowed: 0 (none), or 2 to 100")
        return self
