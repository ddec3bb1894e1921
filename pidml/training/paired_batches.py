"""Batches of simulated and experimental tracks, for domain adaptation."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

from torch import Tensor

from pidml.spec.adaptation_section import Adaptation
from pidml.training.batches import Batches, Source
from pidml.training.plan import Plan
from pidml.training.room import Batch

#: More passes over the experimental sample than an epoch takes.
_MOST_PASSES = 1_000_000


@dataclass
class Paired:
    """Training batches: those of the simulated tracks, ``(encoded, classes)`` or ``(encoded, classes, weights)``, with
    the encoded features of experimental tracks as one more item at the end.

    The simulated sample decides how long an epoch is; the experimental one is gone through as often as need be, each
    time in an order of its own that depends on the seed, the epoch and the pass alone.
    """

    simulated: Batches
    source: Source
    plan: Plan
    _pass: int = 0
    _experimental: Batches = field(init=False)

    def __post_init__(self) -> None:
        epoch = self.plan.epoch
        own = replace(self.plan, epoch=lambda: epoch() * _MOST_PASSES + self._pass)
        self._experimental = self.source.batches("train", own)

    def __len__(self) -> int:
        return len(self.simulated)

    def __iter__(self) -> Iterator[Batch]:
        with closing(self._endless()) as experimental:
            for batch in self.simulated:
                yield *batch, next(experimental)

    def _endless(self) -> Generator[Tensor]:
        self._pass = 0
        while True:
            for encoded, *_ in self._experimental:
                yield encoded
            self._pass += 1


@dataclass(frozen=True)
class Followed:
    """Validation batches of the simulation, then ``(encoded,)`` of the experimental sample."""

    simulated: Batches
    experimental: Batches

    def __len__(self) -> int:
        return len(self.simulated) + len(self.experimental)

    def __iter__(self) -> Iterator[Batch]:
        yield from self.simulated
        for encoded, *_ in self.experimental:
            yield (encoded,)


def with_experimental(
    adaptation: Adaptation, train: Batches, validation: Batches, experimental: Source, plan: Plan
) -> tuple[Paired, Followed]:
    """Return training and validation batches with experimental tracks.

    Args:
        adaptation: says how many.
        train: batches of the simulation.
        validation: batches of the simulation.
        experimental: where experimental tracks come from, scaled as the simulated ones.
        plan: how ``train`` is drawn. Experimental tracks are drawn alike, undersampling of missing patterns included:
            otherwise the patterns alone would tell the domains apart.
    """
    beside = adaptation.fraction / (1 - adaptation.fraction)
    own = replace(plan, batch_size=max(1, round(plan.batch_size * beside)))
    return Paired(train, experimental, own), Followed(
        validation, experimental.batches("validation", None, plan.share.whole)
    )
