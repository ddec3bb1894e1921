"""Random forests, grown with scikit-learn: leaves hold the fraction of each species, trees are averaged.

Ten trees at a time are grown on a random part of the training sample, so that memory does not depend on its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.prepared import PreparedDataset, rows_of
from pidml.models import Inputs
from pidml.models.tree_arrays import Forest, joined, rounded_down, tree
from pidml.models.trees import Link, Trees
from pidml.spec import JobSpec
from pidml.training.blocks import BLOCK, fit_blocks, tree_columns
from pidml.training.fit import Fit
from pidml.training.fitters import library
from pidml.training.labels import class_indices
from pidml.training.memory import out_of_memory
from pidml.training.objective import loss, output_count
from pidml.training.record import AfterEpoch
from pidml.training.weights import sample_weights

#: Tracks of each sample on which losses are measured at most: the first ones (the samples' order is random).
_LOSS_TRACKS = 100_000


def fit(
    prepared: PreparedDataset, job: JobSpec, species: Sequence[str], work_dir: Path, *,
    after_epoch: AfterEpoch | None = None, **_: Any,
) -> Fit:  # fmt: skip
    """Grow a random forest that identifies ``species``; arguments and errors as for :func:`pidml.training.fit.fit`.

    Raises:
        ToolMissing: scikit-learn is not installed.
        OutOfMemory: memory does not suffice.
    """
    with out_of_memory(
        f"while {job.model.trees} trees grew on up to {job.model.tree_tracks} tracks",
        "lower model.tree_tracks, model.leaves or model.trees, or use a machine with more memory",
    ):
        return fit_blocks(_RandomForest(prepared, job, species), prepared, job, species, work_dir, after_epoch)


class _RandomForest:
    """See :class:`pidml.training.blocks.Grower`."""

    rate = 1.0
    remedy = "leaves hold fractions, which cannot diverge: look for impossible values among the features"

    def __init__(self, prepared: PreparedDataset, job: JobSpec, species: Sequence[str]) -> None:
        self.ensemble = library("sklearn.ensemble", "scikit-learn", "random-forest")
        self.prepared, self.job, self.species = prepared, job, list(species)
        self.objective = job.training.objective
        self.outputs = output_count(self.objective, len(self.species))
        self.link: Link = "logit" if self.objective == "binary" else "log"
        self.epochs = -(-job.model.trees // BLOCK)
        self.network = Trees(job.model, Inputs.of(prepared.scaling), self.outputs)
        self.sample = prepared.split("train")
        self.rows = min(len(self.sample), job.model.tree_tracks)
        self.tracks = self.rows * BLOCK
        self.weights = sample_weights(prepared, job.training, self.species, draws=False)
        self.blocks: list[Forest] = []
        self.looked = [self._looked_at(name) for name in ("train", "validation")]

    def grow(self, block: int) -> None:
        """Add ten trees, or fewer if these are the last."""
        model, rng = self.job.model, np.random.default_rng([self.job.seed, block])
        chosen = np.arange(self.rows)
        if self.rows < len(self.sample):
            chosen = np.sort(rng.choice(len(self.sample), self.rows, replace=False))
        features = np.asarray(self.sample.features[chosen])
        classes = class_indices(np.asarray(self.sample.pdg[chosen]), self.species)
        forest = self.ensemble.RandomForestClassifier(
            n_estimators=min(BLOCK, model.trees - block * BLOCK),
            max_leaf_nodes=model.leaves,
            min_samples_leaf=model.leaf_tracks,
            max_features=model.feature_fraction,
            random_state=int(rng.integers(2**31)),
            n_jobs=torch.get_num_threads(),
        )
        weight = self._weights(features, classes) if self.weights is not None else None
        forest.fit(tree_columns(self.network, self.prepared, features), classes, sample_weight=weight)
        self._keep(sklearn_forest(forest, self.outputs))

    def losses(self) -> tuple[float, float]:
        """Return training and validation loss."""
        found = []
        for each in self.looked:
            logits = self.network.logits(each["sums"] / self.trees)
            total = loss(self.objective, logits, each["classes"], each["weights"]) * len(logits)
            found.append(float(total / each["weights"].sum()))
        return found[0], found[1]

    def state(self) -> dict[str, torch.Tensor]:
        """Return the arrays of the trees."""
        whole = joined(self.blocks)
        return {each.name: torch.from_numpy(getattr(whole, each.name)) for each in fields(Forest)}

    def restore(self, state: dict[str, torch.Tensor], blocks: int) -> None:
        """Take up the trees of a checkpoint."""
        whole = Forest(**{name: value.numpy() for name, value in state.items()})
        for block in range(blocks):
            self._keep(whole.trees(block * BLOCK, (block + 1) * BLOCK))

    def forest(self, blocks: int) -> Forest:
        """Return the trees of the first blocks; their sum is the mean."""
        kept = joined(self.blocks[:blocks])
        return replace(kept, values=kept.values / np.float32(len(kept.roots)))

    def offset(self) -> NDArray[np.float32]:
        """Return 0: leaves hold probabilities."""
        return np.zeros(self.outputs, np.float32)

    @property
    def trees(self) -> int:
        """Number of trees so far."""
        return sum(len(each.roots) for each in self.blocks)

    def _keep(self, block: Forest) -> None:
        """Add a block to the trees and to the sums that losses are made of."""
        self.blocks.append(block)
        self.network.plant(block, self.link)
        for each in self.looked:
            for rows in range(0, len(each["columns"]), self.network.evaluation_batch):
                part = slice(rows, rows + self.network.evaluation_batch)
                each["sums"][part] += self.network.sums(each["columns"][part])

    def _looked_at(self, name: str) -> dict[str, torch.Tensor]:
        sample, rows = self.prepared.split(name), slice(0, _LOSS_TRACKS)
        features, classes = rows_of(sample.features, rows), class_indices(rows_of(sample.pdg, rows), self.species)
        columns = tree_columns(self.network, self.prepared, features)
        return {
            "columns": torch.from_numpy(columns),
            "classes": torch.from_numpy(classes),
            "weights": torch.from_numpy(self._weights(features, classes)),
            "sums": torch.zeros(len(columns), self.outputs),
        }

    def _weights(self, features: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the weight of each track, by class and missing pattern."""
        if self.weights is None:
            return np.ones(len(classes), np.float32)
        return self.weights[classes, tracks.feature_pattern(features, self.prepared.features)]


def sklearn_forest(forest: Any, outputs: int) -> Forest:
    """Return the trees of a scikit-learn forest; leaves hold the fraction of each class, of which ``outputs`` are kept.

    Classes are numbers from 0; one that no track of the sample has gets 0.
    """
    return joined(_tree(each.tree_, np.asarray(forest.classes_, np.int64), outputs) for each in forest.estimators_)


def _tree(own: Any, classes: NDArray[np.int64], outputs: int) -> Forest:
    fractions = np.zeros((own.node_count, max(outputs, int(classes.max()) + 1)), np.float32)
    fractions[:, classes] = own.value[:, 0, :] / own.value[:, 0, :].sum(axis=1, keepdims=True)
    return tree(
        feature=own.feature,
        threshold=rounded_down(own.threshold),
        left=own.children_left,
        right=own.children_right,
        missing_left=own.missing_go_to_left.astype(np.bool_),
        values=fractions[:, :outputs],
    )
