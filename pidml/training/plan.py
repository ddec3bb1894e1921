"""How a sample is drawn, and which part of each batch a process takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from pidml.errors import TrainingError


@dataclass(frozen=True)
class Share:
    """Which part of each batch a process takes: that of ``rank`` among ``world``, in ``split`` parts one by one."""

    rank: int = 0
    world: int = 1
    split: int = 1

    @property
    def whole(self) -> Share:
        """The same part, at once."""
        return Share(self.rank, self.world)

    def of(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield this process's parts of a batch; their sizes differ by one row at most."""
        first, number = self.rank * self.split, self.world * self.split
        parts = [tensor.tensor_split(number)[first : first + self.split] for tensor in tensors]
        yield from zip(*parts, strict=True)


@dataclass(frozen=True)
class Plan:
    """How a sample is drawn.

    Attributes:
        batch_size: tracks per batch, all processes together.
        seed: of the order.
        epoch: tells the current epoch's number.
        undersample: draw equally many tracks of every missing pattern, in turn.
        share: the part of each batch that is taken.
    """

    batch_size: int
    seed: int
    epoch: Callable[[], int]
    undersample: bool = False
    share: Share = field(default_factory=Share)

    def generator(self) -> np.random.Generator:
        """Return the random generator of the current epoch."""
        return np.random.default_rng([self.seed, self.epoch()])

    def batches(self, rows: int) -> int:
        """Return the number of batches that ``rows`` tracks make: whole ones, at least one.

        Raises:
            TrainingError: a batch has too few tracks for every part to have one.
        """
        size, parts = min(rows, self.batch_size), self.share.world * self.share.split
        if size < parts:
            raise TrainingError(
                f"a batch of {size} tracks cannot be divided into {parts} parts",
                "raise training.batch_size, give more tracks, or lower training.devices",
            )
        return max(1, rows // self.batch_size)
