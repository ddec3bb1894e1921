"""In which order an epoch goes through a sample: blocks of rows in random order, mixed a few million tracks at a time.

Whether the sample is held in memory or read from its file meanwhile makes no difference to the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml.training.plan import Plan
from pidml.training.undersampling import Undersampling

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Tracks that are mixed.

    Attributes:
        blocks: block of rows, and which of its rows are taken (None: all).
        places: of each of these tracks, in that order, its place in the pool.
    """

    blocks: list[tuple[slice, Rows | None]]
    places: Rows


class Order:
    """The order of a sample's tracks in every epoch.

    Attributes:
        rows: tracks per epoch.
        plan: says which epoch it is, and the seed.

    Args:
        blocks: the sample's rows, in blocks.
        plan: see above.
        pool_rows: tracks mixed at a time.
        patterns: returns the missing patterns of some rows; asked for if the plan undersamples.
    """

    def __init__(
        self, blocks: Sequence[slice], plan: Plan, pool_rows: int, patterns: Callable[[slice], NDArray[np.uint8]]
    ) -> None:
        self.plan, self._blocks, self._patterns = plan, list(blocks), patterns
        self._per_pool = max(1, pool_rows // max(1, blocks[0].stop - blocks[0].start))
        self._undersampling: Undersampling | None = None
        self.rows = sum(block.stop - block.start for block in blocks)
        if plan.undersample:
            counts = np.stack([np.bincount(patterns(block), minlength=4) for block in blocks])
            self._undersampling = Undersampling(counts, plan.seed)
            self.rows = self._undersampling.rows

    def pools(self) -> Iterator[Pool]:
        """Yield the pools of the current epoch, each when it is needed."""
        rng, spans = self.plan.generator(), None
        if self._undersampling is not None:
            spans = self._undersampling.spans(self.plan.epoch())
        order = rng.permutation(len(self._blocks))
        for start in range(0, len(order), self._per_pool):
            blocks: list[tuple[slice, Rows | None]] = []
            tracks = 0
            for number in order[start : start + self._per_pool]:
                block, chosen = self._blocks[number], None
                if self._undersampling is not None and spans is not None:
                    chosen = self._undersampling.chosen(int(number), self._patterns(block), spans)
                blocks.append((block, chosen))
                tracks += block.stop - block.start if chosen is None else len(chosen)
            yield Pool(blocks, rng.permutation(tracks))

    def whole(self) -> Rows:
        """Return the rows of the current epoch in their order."""
        rows, start = np.empty(self.rows, np.int64), 0
        for pool in self.pools():
            rows[start : start + len(pool.places)] = _rows(pool)
            start += len(pool.places)
        return rows


def _rows(pool: Pool) -> Rows:
    rows = np.empty(len(pool.places), np.int64)
    rows[pool.places] = np.concatenate(
        [
            np.arange(block.start, block.stop) if chosen is None else block.start + chosen
            for block, chosen in pool.blocks
        ]
    )
    return rows
