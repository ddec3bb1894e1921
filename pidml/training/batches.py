"""Batches without per-track Python: from memory where the sample fits, else from chunks read ahead.

Both kinds are sized iterables of ``(encoded, classes)`` whole batches. What an epoch holds, and in which order, depends
on the seed and the epoch's number alone, so a training that resumes sees what an uninterrupted one would see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pidml import tracks
from pidml.data.prepared import PreparedDataset, Scaling, Split
from pidml.models.pieces import pieces
from pidml.training.labels import class_indices
from pidml.training.readahead import read_ahead

Batch = tuple[Tensor, Tensor]
Encode = Callable[[Tensor], Tensor]
_ROWS = 65_536


class Batches(Protocol):
    """A sample as batches; ``__len__`` is the number of batches of an epoch."""

    rows: int

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Plan:
    """How a sample is drawn.

    Attributes:
        batch_size: tracks per batch.
        seed: of the order.
        epoch: tells the current epoch's number.
        undersample: draw equally many tracks of every missing pattern, afresh each epoch.
        rank, world: which of how many processes; each takes every ``world``-th batch.
    """

    batch_size: int
    seed: int
    epoch: Callable[[], int]
    undersample: bool = False
    rank: int = 0
    world: int = 1

    def generator(self) -> np.random.Generator:
        """Return the random generator of the current epoch."""
        return np.random.default_rng([self.seed, self.epoch()])

    def count(self, rows: int) -> int:
        """Return the number of batches that a process gets of ``rows`` tracks: whole ones, at least one."""
        return max(1, rows // self.batch_size // self.world)


@torch.no_grad()
def encoded_rows(sample: Split, rows: slice, scaling: Scaling, encode: Encode) -> Tensor:
    """Return the encoded features of some rows of a sample, float32 (rows, encoded)."""
    return encode(torch.from_numpy(scaling.apply(np.asarray(sample.features[rows]))))


class Resident:
    """A sample held as tensors on the device that trains."""

    def __init__(self, encoded: Tensor, classes: Tensor, patterns: NDArray[np.uint8] | None, plan: Plan | None) -> None:
        self.encoded, self.classes, self.plan = encoded, classes, plan
        self.members = None
        self.rows = len(classes)
        if patterns is not None:
            self.members = [np.flatnonzero(patterns == pattern) for pattern in np.unique(patterns)]
            self.rows = min(map(len, self.members)) * len(self.members)

    def __len__(self) -> int:
        return self.plan.count(self.rows) if self.plan else -(-self.rows // _ROWS)

    def __iter__(self) -> Iterator[Batch]:
        if self.plan is None:
            yield from ((part[0], part[1]) for part in pieces(_ROWS, self.encoded, self.classes))
            return
        plan, order = self.plan, self._order(self.plan)
        for number in range(len(self)):
            start = (number * plan.world + plan.rank) * plan.batch_size
            chosen = order[start : start + plan.batch_size]
            yield self.encoded.index_select(0, chosen), self.classes.index_select(0, chosen)

    def _order(self, plan: Plan) -> Tensor:
        rng = plan.generator()
        if self.members is None:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            order = torch.randperm(self.rows, generator=generator)
        else:
            each = self.rows // len(self.members)
            drawn = np.concatenate([rng.choice(rows, each, replace=False) for rows in self.members])
            order = torch.from_numpy(rng.permutation(drawn))
        return order.to(self.encoded.device)


class Streamed:
    """A sample read from its memory map: blocks of rows in random order, mixed in a pool of a few million tracks."""

    def __init__(
        self, sample: Split, read: Callable[[slice], Batch], plan: Plan | None, counts: NDArray[np.int64] | None,
        pool_rows: int, features: Sequence[str],
    ) -> None:  # fmt: skip
        self.sample, self.read, self.plan, self.counts, self.features = sample, read, plan, counts, features
        self.blocks = list(sample.chunks(_ROWS))
        self.blocks_per_pool = max(1, pool_rows // _ROWS)
        self.rows = len(sample)
        if counts is not None:
            present = counts.sum(axis=0) > 0
            self.rows = int(counts.sum(axis=0)[present].min() * present.sum())

    def __len__(self) -> int:
        return self.plan.count(self.rows) if self.plan else len(self.blocks)

    def __iter__(self) -> Iterator[Batch]:
        plan = self.plan
        if plan is None:
            yield from read_ahead(self.read(block) for block in self.blocks)
            return
        batches = self._batches(plan)
        for number, batch in enumerate(batches):
            if number >= len(self) * plan.world:
                break
            if number % plan.world == plan.rank:
                yield batch

    def _batches(self, plan: Plan) -> Iterator[Batch]:
        left: Batch | None = None
        for pool in read_ahead(self._pools(plan)):
            encoded, classes = pool if left is None else (torch.cat([left[0], pool[0]]), torch.cat([left[1], pool[1]]))
            whole = len(classes) // plan.batch_size * plan.batch_size
            for part in pieces(plan.batch_size, encoded[:whole], classes[:whole]):
                yield part[0], part[1]
            left = encoded[whole:], classes[whole:]
        if left is not None and self.rows < plan.batch_size:
            yield left

    def _pools(self, plan: Plan) -> Iterator[Batch]:
        rng = plan.generator()
        order = rng.permutation(len(self.blocks))
        quota = self._quota(rng)
        for start in range(0, len(order), self.blocks_per_pool):
            chosen = order[start : start + self.blocks_per_pool]
            parts = [self._block(int(block), quota, rng) for block in chosen]
            encoded, classes = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
            mixed = torch.from_numpy(rng.permutation(len(classes)))
            yield encoded.index_select(0, mixed), classes.index_select(0, mixed)

    def _quota(self, rng: np.random.Generator) -> NDArray[np.int64] | None:
        """Return how many tracks of each pattern are drawn from each block, (blocks, patterns), if undersampled."""
        if self.counts is None:
            return None
        quota = np.zeros_like(self.counts)
        present = np.flatnonzero(self.counts.sum(axis=0))
        for pattern in present:
            available = self.counts[:, pattern]
            quota[:, pattern] = rng.multivariate_hypergeometric(
                available, self.rows // len(present), method="marginals"
            )
        return quota

    def _block(self, block: int, quota: NDArray[np.int64] | None, rng: np.random.Generator) -> Batch:
        encoded, classes = self.read(self.blocks[block])
        if quota is None:
            return encoded, classes
        raw = np.asarray(self.sample.features[self.blocks[block]])
        patterns = tracks.feature_pattern(raw, self.features)
        drawn = [
            rng.choice(np.flatnonzero(patterns == pattern), number, replace=False)
            for pattern, number in enumerate(quota[block])
            if number
        ]
        chosen = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *drawn]))
        return encoded.index_select(0, chosen), classes.index_select(0, chosen)


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
    """

    prepared: PreparedDataset
    species: Sequence[str]
    encode: Encode
    resident_bytes: int
    pool_rows: int
    device: torch.device
    scaling: Scaling | None = None

    def batches(self, name: str, plan: Plan | None) -> Batches:
        """Return the sample ``name`` as batches: drawn at random by a plan, or without one in order and complete."""
        sample, scaling = self.prepared.split(name), self.scaling or self.prepared.scaling
        names = self.prepared.features

        def read(rows: slice) -> Batch:
            classes = class_indices(np.asarray(sample.pdg[rows]), self.species)
            return encoded_rows(sample, rows, scaling, self.encode), torch.from_numpy(classes)

        width = read(slice(0, 1))[0].shape[1]
        undersample = plan is not None and plan.undersample
        patterns = _patterns(sample, names) if undersample else None
        if len(sample) * (4 * width + 8) > self.resident_bytes:
            counts = None
            if patterns is not None:
                counts = np.stack([np.bincount(patterns[rows], minlength=4) for rows in sample.chunks(_ROWS)])
            return Streamed(sample, read, plan, counts, self.pool_rows, names)
        encoded = torch.empty((len(sample), width), device=self.device)
        classes = torch.empty(len(sample), dtype=torch.int64, device=self.device)
        for rows in sample.chunks(_ROWS):
            encoded[rows], classes[rows] = read(rows)
        return Resident(encoded, classes, patterns, plan)


def _patterns(sample: Split, names: Sequence[str]) -> NDArray[Any]:
    """Return every track's missing pattern, one byte each, read in chunks."""
    result = np.empty(len(sample), np.uint8)
    for rows in sample.chunks():
        result[rows] = tracks.feature_pattern(np.asarray(sample.features[rows]), names)
    return result
