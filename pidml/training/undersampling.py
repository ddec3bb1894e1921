"""Epochs with equally many tracks of every missing pattern, which together leave no track out.

The rarest pattern decides how many tracks of each an epoch takes; patterns that are hardly seen do not, else a handful
of tracks would make an epoch of a step: of these an epoch takes what there is. Every epoch goes on where the one before
it stopped, so that every track of a common pattern is used before any is used again. Samples may be divided into blocks
of rows that are never in memory together: an epoch then takes from each block in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.taught import Taught, hardly_seen
from pidml.spec.model_sections import Training

Counts = NDArray[np.int64]
_HALVINGS = 64
#: Part of the sample that an epoch should take, at least.
_LEAST_PART = 0.05


def each_pattern(totals: Counts) -> Counts:
    """Return how many tracks of each missing pattern an epoch takes.

    >>> each_pattern(np.array([3000, 5, 0, 7000])).tolist()
    [3000, 5, 0, 3000]
    """
    result: Counts = np.minimum(totals, totals[~hardly_seen(totals)].min())
    return result


def undersampling_notices(taught: Taught, training: Training) -> Iterator[str]:
    """Yield a line if undersampling leaves little of the sample in an epoch."""
    totals = np.array(taught.patterns)
    rows, rarest = int(each_pattern(totals).sum()), int(totals[~hardly_seen(totals)].min())
    if training.undersample and rows < _LEAST_PART * taught.tracks:
        pattern = tracks.PATTERN_NAMES[taught.patterns.index(rarest)]
        steps = max(1, rows // training.batch_size)
        yield (
            f"training.undersample: only {rarest:,} of {taught.tracks:,} training tracks are {pattern}, so that an "
            f"epoch takes {rows:,} tracks in {steps:,} step{'s' if steps > 1 else ''}; raise "
            "training.max_epochs, or take training.pattern_weights: balanced instead, which uses every track"
        )


class Undersampling:
    """Which tracks an epoch takes.

    Attributes:
        rows: tracks per epoch.
        each: tracks of each pattern per epoch.

    Args:
        counts: tracks per block and pattern, (blocks, patterns).
        seed: of the order in which tracks are taken.
    """

    def __init__(self, counts: Counts, seed: int) -> None:
        self.counts, self.seed = counts, seed
        self.each = each_pattern(counts.sum(axis=0))
        self.present, self.rows = [int(pattern) for pattern in np.flatnonzero(self.each)], int(self.each.sum())
        self._shift = np.random.default_rng([seed, 0]).random(counts.shape)

    def spans(self, epoch: int) -> list[tuple[Counts, Counts]]:
        """Return the spans of an epoch: from which to which of its tracks each block gives, both (blocks, patterns)."""
        first, second = np.zeros_like(self.counts), np.zeros_like(self.counts)
        ends = [first.copy(), second.copy()]
        for pattern in self.present:
            total, each = int(self.counts[:, pattern].sum()), int(self.each[pattern])
            start = epoch * each % total
            first[:, pattern] = self._taken(pattern, start)
            ends[0][:, pattern] = self._taken(pattern, min(start + each, total))
            ends[1][:, pattern] = self._taken(pattern, max(start + each - total, 0))
        return [(first, ends[0]), (second, ends[1])]

    def _taken(self, pattern: int, number: int) -> Counts:
        """Return how many tracks of each block are among the first ``number`` of a pattern, (blocks,).

        The i-th track of a block with n tracks lies at (i + shift) / n: all blocks are used up evenly.
        """
        counts, shift = self.counts[:, pattern], self._shift[:, pattern]
        low, high = 0.0, 1.0
        below, above = np.zeros_like(counts), counts
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            within = np.clip(np.ceil(counts * middle - shift), 0, counts).astype(np.int64)
            if within.sum() <= number:
                low, below = middle, within
            else:
                high, above = middle, within
        lacking = number - int(below.sum())  # tracks that lie closer together than numbers can tell
        below[np.flatnonzero(above > below)[:lacking]] += 1
        return below

    def chosen(self, block: int, patterns: NDArray[np.uint8], spans: list[tuple[Counts, Counts]]) -> NDArray[np.int64]:
        """Return the rows of a block that an epoch takes.

        Args:
            block: number of the block.
            patterns: missing pattern of each of its rows.
            spans: of the epoch, from :meth:`spans`.
        """
        parts = [np.zeros(0, np.int64)]
        for pattern in self.present:
            order = np.random.default_rng([self.seed, 1, block, pattern]).permutation(
                np.flatnonzero(patterns == pattern)
            )
            parts += [order[start[block, pattern] : stop[block, pattern]] for start, stop in spans]
        return np.concatenate(parts)
