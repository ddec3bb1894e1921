"""The sum of the leaves that a track reaches: evaluated with tensors, exported as the operator that ONNX has for it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pidml.models.tree_arrays import ALL_OUTPUTS, Forest

#: Pairs of track and tree that are looked at together: keeps intermediate values within the processor's cache.
_TOGETHER = 1_000_000


class TreeSum:
    """Evaluates a forest.

    Args:
        forest: the trees.
        columns: number of columns that tracks have.
        outputs: number of sums.
    """

    def __init__(self, forest: Forest, columns: int, outputs: int) -> None:
        self.forest, self.columns, self.outputs, self.depth = forest, columns, outputs, forest.depth()
        self._groups: list[TreeSum] = []
        # Columns come twice, NaN as −inf and as +inf, so that one comparison decides.
        aside = np.where(forest.missing_first, 0, columns)
        self._column = torch.from_numpy(forest.feature.astype(np.int64) + aside)
        self._threshold = torch.from_numpy(forest.threshold)
        self._first = torch.from_numpy(forest.first.astype(np.int64))
        self._leaf_row = torch.from_numpy(np.cumsum(forest.is_leaf) - 1)
        self._values = torch.from_numpy(forest.values)
        self._roots = torch.from_numpy(forest.roots.astype(np.int64))
        self._target = torch.from_numpy(forest.target.astype(np.int64))
        self._everywhere = bool((forest.target == ALL_OUTPUTS).all())

    def __call__(self, columns: Tensor) -> Tensor:
        """Return the sums, float32 ``(batch, outputs)``, of columns ``(batch, columns)``; differentiates nothing."""
        if self._groups and torch.onnx.is_in_onnx_export():
            return torch.stack([group(columns) for group in self._groups]).sum(dim=0)
        result: Tensor = _Operator.apply(columns, self)  # type: ignore[no-untyped-call]
        return result

    def group(self, nodes: int) -> None:
        """Export an operator for each group of trees with about so many nodes, and the sum of the groups.

        Runtimes send each track through all trees of an operator before the next track. Trees that fit a core's cache
        together are faster then, if many tracks are evaluated at once.
        """
        number = (self.forest.roots // nodes).tolist()
        bounds = [*(at for at, each in enumerate(number) if at == 0 or each != number[at - 1]), len(number)]
        parts = [self.forest.trees(start, stop) for start, stop in itertools.pairwise(bounds)]
        self._groups = [TreeSum(part, self.columns, self.outputs) for part in parts] if len(parts) > 1 else []

    def evaluate(self, columns: Tensor) -> Tensor:
        """Return the sums; see :meth:`__call__`."""
        batch = len(columns)
        missing = torch.isnan(columns)
        values = torch.cat([columns.masked_fill(missing, -torch.inf), columns.masked_fill(missing, torch.inf)], dim=1)
        result = torch.zeros(batch, self.outputs, dtype=torch.float64)
        together = max(1, _TOGETHER // max(batch, 1))
        for start in range(0, len(self._roots), together):
            trees = slice(start, start + together)
            node = self._roots[trees].expand(batch, -1)
            for _ in range(self.depth):
                beyond = values.gather(1, self._column[node]) > self._threshold[node]
                node = self._first[node] + beyond
            reached = self._values[self._leaf_row[node]].double()
            if self._everywhere:
                result += reached.sum(dim=1)
            else:
                result.index_add_(1, self._target[trees], reached[:, :, 0])
        return result.float()

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the ONNX operator, with the suffixes by which PyTorch's exporter knows types."""
        forest = self.forest
        sizes = np.diff(np.append(forest.roots, len(forest.first)))
        start, trees = np.repeat(forest.roots, sizes), np.repeat(np.arange(len(sizes)), sizes)
        leaf, number = forest.is_leaf, np.arange(len(forest.first)) - start
        first = np.where(leaf, 0, forest.first - start)
        width = forest.values.shape[1]
        target = np.repeat(forest.target[trees[leaf]], width)
        return {
            "aggregate_function_s": "SUM",
            "post_transform_s": "NONE",
            "n_targets_i": self.outputs,
            "nodes_treeids_i": trees.tolist(),
            "nodes_nodeids_i": number.tolist(),
            "nodes_featureids_i": forest.feature.tolist(),
            "nodes_values_f": np.where(leaf, 0, forest.threshold).tolist(),
            "nodes_modes_s": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
            "nodes_truenodeids_i": first.tolist(),
            "nodes_falsenodeids_i": np.where(leaf, 0, first + 1).tolist(),
            "nodes_missing_value_tracks_true_i": forest.missing_first.astype(int).tolist(),
            "target_treeids_i": np.repeat(trees[leaf], width).tolist(),
            "target_nodeids_i": np.repeat(number[leaf], width).tolist(),
            "target_ids_i": np.where(target < 0, np.tile(np.arange(width), int(leaf.sum())), target).tolist(),
            "target_weights_f": forest.values.ravel().tolist(),
        }


class _Operator(torch.autograd.Function):
    """What stands in an exported graph for the sum."""

    @staticmethod
    def forward(_: Any, columns: Tensor, trees: TreeSum) -> Tensor:
        if torch.onnx.is_in_onnx_export():  # nothing inside is to be traced
            return columns.new_zeros(columns.shape[0], trees.outputs)
        return trees.evaluate(columns)

    @staticmethod
    def symbolic(graph: Any, columns: Any, trees: TreeSum) -> Any:
        result = graph.op("ai.onnx.ml::TreeEnsembleRegressor", columns, **trees.attributes())
        result.setType(columns.type().with_sizes([None, trees.outputs]))
        return result
