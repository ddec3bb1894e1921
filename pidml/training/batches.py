"""Batches without per-track Python: from memory where the sample fits, else from chunks read ahead.

Both kinds are sized iterables of ``(encoded, classes)``, or ``(encoded, classes, weights)`` where tracks are weighted.
What an epoch holds, and in which order, depends on the seed and the epoch's number alone, so a training that resumes
sees what an uninterrupted one would see. Each batch may be taken in parts: by several processes, and one after the
other where it does not fit into memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pidml import tracks
from pidml.data.prepared import PreparedDataset, Scaling, Split, rows_of
from pidml.errors import TrainingError
from pidml.models.pieces import pieces
from pidml.training.labels import class_indices
from pidml.training.readahead import read_ahead
from pidml.training.undersampling import Undersampling

logger = logging.getLogger(__name__)

#: Encoded features (rows, encoded), classes (rows,) and, where tracks are weighted, weights (rows,).
Batch = tuple[Tensor, ...]
Encode = Callable[[Tensor], Tensor]
_ROWS = 65_536


class Batches(Protocol):
    """A sample as batches; ``__len__`` is the number of parts of batches that a process gets in an epoch."""

    rows: int

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...


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

    def of(self, *tensors: Tensor) -> Iterator[Batch]:
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


@torch.no_grad()
def encoded_rows(sample: Split, rows: slice, scaling: Scaling, encode: Encode) -> Tensor:
    """Return the encoded features of some rows of a sample, float32 (rows, encoded)."""
    return encode(torch.from_numpy(scaling.apply(rows_of(sample.features, rows))))


class Resident:
    """A sample held as tensors, on the device that trains if they fit there.

    Args:
        tensors: encoded features, classes and, where tracks are weighted, weights.
        plan: how batches are drawn; None gives the sample in order.
        share: the part of each batch that is taken if there is no plan.
        patterns: missing pattern of each track, if undersampled.
    """

    def __init__(self, tensors: Batch, plan: Plan | None, share: Share, patterns: NDArray[np.uint8] | None) -> None:
        self.tensors, self.plan, self.share = tensors, plan, share
        self.rows, self.patterns, self.undersampling = len(tensors[0]), patterns, None
        if plan is not None and patterns is not None:
            self.undersampling = Undersampling(np.bincount(patterns, minlength=4)[None], plan.seed)
            self.rows = self.undersampling.rows

    def __len__(self) -> int:
        return self.plan.batches(self.rows) * self.plan.share.split if self.plan else -(-self.rows // _ROWS)

    def __iter__(self) -> Iterator[Batch]:
        if self.plan is None:
            for part in pieces(_ROWS, *self.tensors):
                yield from self.share.of(*part)
            return
        plan, order = self.plan, self._order(self.plan)
        for number in range(plan.batches(self.rows)):
            for (chosen,) in plan.share.of(order[number * plan.batch_size : (number + 1) * plan.batch_size]):
                yield tuple(tensor.index_select(0, chosen) for tensor in self.tensors)

    def _order(self, plan: Plan) -> Tensor:
        rng = plan.generator()
        if self.undersampling is None or self.patterns is None:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            order = torch.randperm(self.rows, generator=generator)
        else:
            drawn = self.undersampling.chosen(0, self.patterns, self.undersampling.spans(plan.epoch()))
            order = torch.from_numpy(rng.permutation(drawn))
        return order.to(self.tensors[0].device)


class Streamed:
    """A sample read from its file: blocks of rows in random order, mixed in a pool of a few million tracks.

    Args:
        sample: the sample.
        read: returns the batch that some rows make.
        plan, share: as for :class:`Resident`.
        pool_rows: tracks mixed at a time.
        patterns: returns the missing patterns of some rows, if undersampled.
    """

    def __init__(
        self, sample: Split, read: Callable[[slice], Batch], plan: Plan | None, share: Share, pool_rows: int,
        patterns: Callable[[slice], NDArray[np.uint8]] | None,
    ) -> None:  # fmt: skip
        self.read, self.plan, self.share, self.patterns = read, plan, share, patterns
        self.blocks = list(sample.chunks(_ROWS))
        self.blocks_per_pool = max(1, pool_rows // _ROWS)
        self.rows, self.undersampling = len(sample), None
        if plan is not None and patterns is not None:
            counts = np.stack([np.bincount(patterns(rows), minlength=4) for rows in self.blocks])
            self.undersampling = Undersampling(counts, plan.seed)
            self.rows = self.undersampling.rows

    def __len__(self) -> int:
        return self.plan.batches(self.rows) * self.plan.share.split if self.plan else len(self.blocks)

    def __iter__(self) -> Iterator[Batch]:
        plan = self.plan
        if plan is None:
            for block in read_ahead(self.read(block) for block in self.blocks):
                yield from self.share.of(*block)
            return
        wanted = plan.batches(self.rows)
        for number, batch in enumerate(self._batches(plan)):
            if number >= wanted:
                break
            yield from plan.share.of(*batch)

    def _batches(self, plan: Plan) -> Iterator[Batch]:
        left: Batch | None = None
        for pool in read_ahead(self._pools(plan)):
            joined = pool if left is None else tuple(map(torch.cat, zip(left, pool, strict=True)))
            whole = len(joined[0]) // plan.batch_size * plan.batch_size
            yield from pieces(plan.batch_size, *(tensor[:whole] for tensor in joined))
            left = tuple(tensor[whole:] for tensor in joined)
        if left is not None and self.rows < plan.batch_size:
            yield left

    def _pools(self, plan: Plan) -> Iterator[Batch]:
        rng = plan.generator()
        order = rng.permutation(len(self.blocks))
        spans = self.undersampling.spans(plan.epoch()) if self.undersampling else []
        for start in range(0, len(order), self.blocks_per_pool):
            chosen = order[start : start + self.blocks_per_pool]
            pool = tuple(map(torch.cat, zip(*(self._block(int(block), spans) for block in chosen), strict=True)))
            mixed = torch.from_numpy(rng.permutation(len(pool[0])))
            yield tuple(tensor.index_select(0, mixed) for tensor in pool)

    def _block(self, number: int, spans: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Batch:
        rows = self.blocks[number]
        batch = self.read(rows)
        if self.undersampling is None or self.patterns is None:
            return batch
        chosen = torch.from_numpy(self.undersampling.chosen(number, self.patterns(rows), spans))
        return tuple(tensor.index_select(0, chosen) for tensor in batch)


@dataclass(frozen=True)
class Source:
    """Where batches come from.

    Attributes:
        prepared: the data.
        species: species to be identified, in the order of the outputs.
        encode: the network's parameter-free part.
        resident_bytes: encoded samples up to this size are held in memory, larger ones are streamed.
        pool_rows: tracks mixed at a time when streaming.
        device: where resident tensors lie.
        scaling: how features are standardised; the data's own unless given.
        weights: per class and missing pattern, from :func:`pidml.training.weights.balanced_weights`; None for equal.
    """

    prepared: PreparedDataset
    species: Sequence[str]
    encode: Encode
    resident_bytes: int
    pool_rows: int
    device: torch.device
    scaling: Scaling | None = None
    weights: NDArray[np.float32] | None = None

    def batches(self, name: str, plan: Plan | None, share: Share | None = None) -> Batches:
        """Return the sample ``name`` as batches: drawn at random by a plan, or without one in order and complete."""
        sample, scaling = self.prepared.split(name), self.scaling or self.prepared.scaling
        share = share or Share()

        def read(rows: slice) -> Batch:
            classes = class_indices(rows_of(sample.pdg, rows), self.species)
            batch = encoded_rows(sample, rows, scaling, self.encode), torch.from_numpy(classes)
            if self.weights is None:
                return batch
            return *batch, torch.from_numpy(self.weights[classes, patterns(rows)])

        def patterns(rows: slice) -> NDArray[np.uint8]:
            return tracks.feature_pattern(rows_of(sample.features, rows), self.prepared.features)

        undersampled = plan is not None and plan.undersample
        if len(sample) * sum(each.itemsize * each[0].numel() for each in read(slice(0, 1))) > self.resident_bytes:
            return Streamed(sample, read, plan, share, self.pool_rows, patterns if undersampled else None)
        of_all = [patterns(rows) for rows in sample.chunks(_ROWS)] if undersampled else None
        return Resident(
            self._resident(sample, read), plan, share, np.concatenate(of_all) if of_all is not None else None
        )

    def _resident(self, sample: Split, read: Callable[[slice], Batch]) -> Batch:
        """Return the whole sample as tensors: on the device, or in the processor's memory if it does not fit there."""
        examples = read(slice(0, 1))
        try:
            tensors = _room(examples, len(sample), self.device)
        except torch.OutOfMemoryError:
            logger.warning("the %s sample does not fit on %s: batches are copied there", sample.name, self.device)
            tensors = _room(examples, len(sample), torch.device("cpu"))
        for rows in sample.chunks(_ROWS):
            for tensor, values in zip(tensors, read(rows), strict=True):
                tensor[rows] = values
        return tensors


def _room(examples: Batch, rows: int, device: torch.device) -> Batch:
    return tuple(torch.empty((rows, *each.shape[1:]), dtype=each.dtype, device=device) for each in examples)
