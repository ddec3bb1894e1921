"""Batches without per-track Python: from memory where the sample fits, else from chunks read ahead.

Both kinds are sized iterables of ``(encoded, classes)``, or ``(encoded, classes, weights)`` where tracks are weighted.
What an epoch holds, and in which order, depends on the seed and the epoch's number alone: a training that resumes sees
what an uninterrupted one would see, and how much memory is free decides about its speed only. Each batch may be taken
in parts: by several processes, and one after the other where it does not fit into memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pidml import tracks
from pidml.data.prepared import PreparedDataset, Scaling, Split, rows_of
from pidml.models.pieces import pieces
from pidml.training.labels import class_indices
from pidml.training.order import Order, Pool
from pidml.training.plan import Plan, Share
from pidml.training.readahead import read_ahead
from pidml.training.room import Batch, Room, room_for

logger = logging.getLogger(__name__)

Encode = Callable[[Tensor], Tensor]
_ROWS = 65_536


class Batches(Protocol):
    """A sample as batches; ``__len__`` is the number of parts of batches that a process gets in an epoch."""

    rows: int

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...


@torch.no_grad()
def encoded_rows(sample: Split, rows: slice, scaling: Scaling, encode: Encode) -> Tensor:
    """Return the encoded features of some rows of a sample, float32 (rows, encoded)."""
    return encode(torch.from_numpy(scaling.apply(rows_of(sample.features, rows))))


class Resident:
    """A sample held as tensors, on the device that trains if they fit there.

    Args:
        tensors: encoded features, classes and, where tracks are weighted, weights.
        order: how batches are drawn; None gives the sample in order.
        share: the part of each batch that is taken if there is no order.
    """

    def __init__(self, tensors: Batch, order: Order | None, share: Share) -> None:
        self.tensors, self.order, self.share = tensors, order, share
        self.rows = len(tensors[0]) if order is None else order.rows

    def __len__(self) -> int:
        return _parts(self.order) if self.order else -(-self.rows // _ROWS)

    def __iter__(self) -> Iterator[Batch]:
        if self.order is None:
            for part in pieces(_ROWS, *self.tensors):
                yield from self.share.of(*part)
            return
        plan, rows = self.order.plan, torch.from_numpy(self.order.whole()).to(self.tensors[0].device)
        for number in range(plan.batches(self.rows)):
            for (chosen,) in plan.share.of(rows[number * plan.batch_size : (number + 1) * plan.batch_size]):
                yield tuple(tensor.index_select(0, chosen) for tensor in self.tensors)


class Streamed:
    """A sample read from its file: the same batches in the same order, with two pools of tracks in memory at a time.

    Args:
        sample: the sample.
        read: returns the batch that some rows make.
        order, share: as for :class:`Resident`.
    """

    def __init__(self, sample: Split, read: Callable[[slice], Batch], order: Order | None, share: Share) -> None:
        self.read, self.order, self.share = read, order, share
        self.blocks = list(sample.chunks(_ROWS))
        self.rows = len(sample) if order is None else order.rows

    def __len__(self) -> int:
        return _parts(self.order) if self.order else len(self.blocks)

    def __iter__(self) -> Iterator[Batch]:
        if self.order is None:
            for block in read_ahead(self.read(block) for block in self.blocks):
                yield from self.share.of(*block)
            return
        plan = self.order.plan
        for batch in islice(self._batches(self.order), plan.batches(self.rows)):
            yield from plan.share.of(*batch)

    def _batches(self, order: Order) -> Iterator[Batch]:
        size = order.plan.batch_size
        left: Batch = ()
        for pool in read_ahead(map(self._mixed, order.pools())):
            rest: Batch = pool
            if left:
                lacking = size - len(left[0])
                joined = tuple(torch.cat([a, b[:lacking]]) for a, b in zip(left, pool, strict=True))
                if len(joined[0]) < size:
                    left = joined
                    continue
                yield joined
                rest = tuple(tensor[lacking:] for tensor in pool)
            whole = len(rest[0]) // size * size
            yield from pieces(size, *(tensor[:whole] for tensor in rest))
            left = tuple(tensor[whole:].clone() for tensor in rest)  # a view would keep the whole pool
            del pool, rest
        if left and self.rows < size:
            yield left

    def _mixed(self, pool: Pool) -> Batch:
        """Return the tracks of a pool in their places; beside it only one block is in memory."""
        places, start = torch.from_numpy(pool.places), 0
        mixed: Batch = ()
        for rows, chosen in pool.blocks:
            block = self.read(rows)
            if chosen is not None:
                block = tuple(tensor.index_select(0, torch.from_numpy(chosen)) for tensor in block)
            mixed = mixed or room_for(block, len(places), torch.device("cpu"))
            own = places[start : start + len(block[0])]
            for whole, part in zip(mixed, block, strict=True):
                whole.index_copy_(0, own, part)
            start += len(own)
        return mixed


def _parts(order: Order) -> int:
    return order.plan.batches(order.rows) * order.plan.share.split


@dataclass(frozen=True)
class Source:
    """Where batches come from.

    Attributes:
        prepared: the data.
        species: species to be identified, in the order of the outputs.
        encode: the network's parameter-free part.
        rooms: where encoded samples may be held, best place first; one that fits nowhere is streamed.
        pool_rows: tracks mixed at a time.
        scaling: how features are standardised; the data's own unless given.
        weights: per class and missing pattern, from :func:`pidml.training.weights.balanced_weights`; None for equal.
    """

    prepared: PreparedDataset
    species: Sequence[str]
    encode: Encode
    rooms: Sequence[Room]
    pool_rows: int
    scaling: Scaling | None = None
    weights: NDArray[np.float32] | None = None

    def batches(self, name: str, plan: Plan | None, share: Share | None = None) -> Batches:
        """Return the sample ``name`` as batches: drawn at random by a plan, or without one in order and complete.

        What they hold does not depend on where there is room.
        """
        sample, scaling = self.prepared.split(name), self.scaling or self.prepared.scaling
        share, known = share or Share(), self.prepared.features

        def read(rows: slice) -> Batch:
            classes = class_indices(rows_of(sample.pdg, rows), self.species)
            batch = encoded_rows(sample, rows, scaling, self.encode), torch.from_numpy(classes)
            if self.weights is None:
                return batch
            return *batch, torch.from_numpy(self.weights[classes, patterns(rows)])

        def patterns(rows: slice) -> NDArray[np.uint8]:
            return tracks.feature_pattern(rows_of(sample.features, rows), known)

        blocks, held = list(sample.chunks(_ROWS)), self._held(sample, read)
        order = None
        if plan and plan.undersample and held is not None:  # a byte per track spares reading the file in every epoch
            of_all = np.concatenate([patterns(rows) for rows in blocks])
            order = Order(blocks, plan, self.pool_rows, lambda rows: of_all[rows])
        elif plan:
            order = Order(blocks, plan, self.pool_rows, patterns)
        return Streamed(sample, read, order, share) if held is None else Resident(held, order, share)

    def _held(self, sample: Split, read: Callable[[slice], Batch]) -> Batch | None:
        """Return the whole sample as tensors where there is room; None if there is none."""
        examples = read(slice(0, 1))
        size = len(sample) * sum(each.itemsize * each[0].numel() for each in examples)
        for room in self.rooms:
            if (tensors := room.take(examples, len(sample))) is not None:
                logger.info("the %s sample (%.2f GiB) is held on %s", sample.name, size / 2**30, room.device)
                for rows in sample.chunks(_ROWS):
                    for tensor, values in zip(tensors, read(rows), strict=True):
                        tensor[rows] = values
                return tensors
        logger.info("the %s sample (%.2f GiB) is read from its file meanwhile", sample.name, size / 2**30)
        return None
