"""Decision trees as plain arrays: the one form in which trees of any library are kept, evaluated and exported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

#: In :attr:`Forest.target`: the leaves of this tree hold a value for every output.
ALL_OUTPUTS = -1


@dataclass(frozen=True)
class Forest:
    """Trees one after another, the nodes of each from its root downwards, siblings side by side.

    A track goes to the first child of a node if its value is at or below the threshold, else to the second, which
    follows it; a missing value goes where the node says. All comparisons are of float32 with float32, so that every
    program that evaluates the trees decides alike.

    Attributes:
        roots: int32 (trees,), the node at which each tree starts.
        target: int32 (trees,), the output that a tree adds to, or :data:`ALL_OUTPUTS`.
        feature: int32 (nodes,), the column that is compared; 0 at leaves.
        threshold: float32 (nodes,); +inf at leaves.
        first: int32 (nodes,), the first child; at leaves the node itself.
        missing_first: bool (nodes,), whether NaN goes to the first child.
        values: float32 (leaves, values), of the leaves in the order of the nodes.
    """

    roots: NDArray[np.int32]
    target: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    first: NDArray[np.int32]
    missing_first: NDArray[np.bool_]
    values: NDArray[np.float32]

    @cached_property
    def is_leaf(self) -> NDArray[np.bool_]:
        """Which nodes are leaves, (nodes,)."""
        return np.asarray(self.first == np.arange(len(self.first)))

    def depth(self) -> int:
        """Return the number of comparisons on the longest way from a root to a leaf."""
        level, depth = self.roots, 0
        while True:
            inner = level[~self.is_leaf[level]]
            if not len(inner):
                return depth
            level, depth = np.concatenate([self.first[inner], self.first[inner] + 1]), depth + 1

    def of_outputs(self, outputs: Sequence[int]) -> Forest:
        """Return what is needed for some of the outputs, renumbered in the order given."""
        if (self.target == ALL_OUTPUTS).all():
            return replace(self, values=self.values[:, list(outputs)])
        kept = np.flatnonzero(np.isin(self.target, outputs))
        found = joined(self.trees(number, number + 1) for number in map(int, kept))
        order = [list(outputs).index(int(target)) for target in found.target]
        return replace(found, target=np.array(order, np.int32))

    def trees(self, start: int, stop: int) -> Forest:
        """Return the trees from ``start`` up to, not including, ``stop``."""
        bounds = np.append(self.roots, len(self.first))
        low, high = (int(bounds[min(each, len(self.roots))]) for each in (start, stop))
        before = int(self.is_leaf[:low].sum())
        leaves = slice(before, before + int(self.is_leaf[low:high].sum()))
        return Forest(
            self.roots[start:stop] - np.int32(low), self.target[start:stop], self.feature[low:high],
            self.threshold[low:high], self.first[low:high] - np.int32(low), self.missing_first[low:high],
            self.values[leaves],
        )  # fmt: skip


def tree(
    feature: NDArray[np.integer],
    threshold: NDArray[np.float32],
    left: NDArray[np.integer],
    right: NDArray[np.integer],
    missing_left: NDArray[np.bool_],
    values: NDArray[np.float32],
    target: int = ALL_OUTPUTS,
) -> Forest:
    """Return one tree, given as libraries keep it, in the form of :class:`Forest`.

    Args:
        feature: column that each node compares, (nodes,); the root is the first node.
        threshold: values at or below it go left, (nodes,).
        left: first child of each node, (nodes,); −1 at leaves.
        right: second child, as ``left``.
        missing_left: whether NaN goes left, (nodes,).
        values: (nodes, values); only those of leaves count.
        target: see :attr:`Forest.target`.
    """
    order = [np.zeros(1, np.int64)]
    while len(inner := order[-1][left[order[-1]] >= 0]):
        order.append(np.stack([left[inner], right[inner]], axis=1).ravel().astype(np.int64))
    nodes = np.concatenate(order)
    place = np.zeros(len(left), np.int32)
    place[nodes] = np.arange(len(nodes), dtype=np.int32)
    leaf = left[nodes] < 0
    return Forest(
        roots=np.zeros(1, np.int32),
        target=np.array([target], np.int32),
        feature=np.where(leaf, 0, feature[nodes]).astype(np.int32),
        # A split between what is there and what is missing has the threshold +inf: the largest number serves as well.
        threshold=np.where(leaf, np.inf, np.minimum(threshold[nodes], np.finfo(np.float32).max)).astype(np.float32),
        first=np.where(leaf, np.arange(len(nodes)), place[left[nodes]]).astype(np.int32),
        missing_first=np.asarray(missing_left[nodes] & ~leaf, np.bool_),
        values=np.ascontiguousarray(values[nodes][leaf], np.float32),
    )


def joined(forests: Iterable[Forest]) -> Forest:
    """Return all trees of several forests as one."""
    parts = list(forests)
    starts = np.cumsum([0, *(len(each.first) for each in parts[:-1])]).astype(np.int32)
    return Forest(
        roots=np.concatenate([each.roots + start for each, start in zip(parts, starts, strict=True)]),
        target=np.concatenate([each.target for each in parts]),
        feature=np.concatenate([each.feature for each in parts]),
        threshold=np.concatenate([each.threshold for each in parts]),
        first=np.concatenate([each.first + start for each, start in zip(parts, starts, strict=True)]),
        missing_first=np.concatenate([each.missing_first for each in parts]),
        values=np.concatenate([each.values for each in parts]),
    )


def rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 at or below each threshold: the same decision for every float32 value.

    >>> float(rounded_down(np.array([0.1]))[0]) <= 0.1
    True
    """
    near = thresholds.astype(np.float32)
    return np.where(near.astype(np.float64) > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
