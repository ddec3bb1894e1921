"""Boosted trees, grown with XGBoost.

XGBoost compares float32 with float32 and learns where missing values go at every split, so its trees are reproduced
exactly by :class:`pidml.models.tree_arrays.Forest` and in ONNX. Tracks are binned once, in chunks: a byte or two per
column and track stays in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.prepared import PreparedDataset, Split, rows_of
from pidml.errors import TrainingError
from pidml.models import Inputs
from pidml.models.tree_arrays import Forest, joined, tree
from pidml.models.trees import Link, Trees
from pidml.spec import JobSpec
from pidml.training.blocks import BLOCK, fit_blocks, tree_columns
from pidml.training.fit import Fit
from pidml.training.fitters import library
from pidml.training.labels import class_indices, species_counts
from pidml.training.memory import out_of_memory
from pidml.training.objective import loss, output_count
from pidml.training.record import AfterEpoch
from pidml.training.weights import sample_weights

_ROWS = 250_000
#: Tracks that must be drawn for a round on average, at least: with fewer there may be a round without any.
_LEAST_DRAWN = 20


def fit(
    prepared: PreparedDataset, job: JobSpec, species: Sequence[str], work_dir: Path, *,
    after_epoch: AfterEpoch | None = None, **_: Any,
) -> Fit:  # fmt: skip
    """Grow boosted trees that identify ``species``; arguments and errors as for :func:`pidml.training.fit.fit`.

    Raises:
        ToolMissing: XGBoost is not installed.
        TrainingError: ``model.track_fraction`` leaves too few tracks for a round, or XGBoost cannot grow trees.
        OutOfMemory: memory does not suffice.
    """
    _check_drawn(job.model.track_fraction, len(prepared.split("train")))
    with (
        _xgboost_named(),
        out_of_memory(
            f"while trees grew on {len(prepared.split('train'))} tracks",
            "use a machine with more memory; fewer tracks (preparation.max_tracks) need less, and so do lower trees",
        ),
    ):
        return fit_blocks(_Boosting(prepared, job, species), prepared, job, species, work_dir, after_epoch)


def _check_drawn(fraction: float, total: int) -> None:
    if fraction < 1 and fraction * total < _LEAST_DRAWN:
        least = f"model.track_fraction to {_LEAST_DRAWN / total:.2g} or more, " if total > _LEAST_DRAWN else ""
        raise TrainingError(
            f"model.track_fraction: {fraction:g} of {total:,} training tracks leaves {fraction * total:.3g} tracks per "
            f"round, at least {_LEAST_DRAWN} are needed",
            f"raise {least}or give more tracks" if least else "set model.track_fraction: 1, or give more tracks",
        )


@contextmanager
def _xgboost_named() -> Iterator[None]:
    """Name XGBoost's own errors by the first line of what it says, without its stack and the places in its source."""
    failed = library("xgboost", "xgboost", "boosted-trees").core.XGBoostError
    try:
        yield
    except failed as error:
        said = re.sub(r"^\[[\d:]+\] \S+: ", "", (str(error).strip().splitlines() or ["nothing"])[0])
        raise TrainingError(
            f"XGBoost cannot grow boosted trees: {said}",
            "compare the settings of `model` with their defaults (`pidml spec`): track_fraction, depth, shrinkage",
        ) from error


class _Boosting:
    """See :class:`pidml.training.blocks.Grower`."""

    link: Link = "identity"
    remedy = "lower model.shrinkage"

    def __init__(self, prepared: PreparedDataset, job: JobSpec, species: Sequence[str]) -> None:
        self.xgboost = library("xgboost", "xgboost", "boosted-trees")
        self.prepared, self.job, self.species = prepared, job, list(species)
        self.binary = job.training.objective == "binary"
        self.outputs = output_count(job.training.objective, len(self.species))
        self.epochs, self.rate = -(-job.model.rounds // BLOCK), job.model.shrinkage
        train = prepared.split("train")
        self.tracks = len(train) * BLOCK
        self.start = self._prior(species_counts(train, self.species), len(train))
        self.train = self._table("train")
        self.validation = self._table("validation", ref=self.train)
        table = sample_weights(prepared, job.training, self.species, draws=False)
        self.weights = self._weights(train, table)
        self.train.set_weight(self.weights)
        self.validation_weights = self._weights(prepared.split("validation"), table)
        self.booster = self.xgboost.Booster(self._parameters(), [self.train, self.validation])

    def grow(self, block: int) -> None:
        """Add ten rounds, or fewer if these are the last."""
        for number in range(block * BLOCK, min((block + 1) * BLOCK, self.job.model.rounds)):
            self._draw(number)
            self.booster.update(self.train, number)

    def _draw(self, number: int) -> None:
        """Give a random part of the tracks no weight in a round.

        XGBoost could do so itself, but would draw otherwise after an interruption.
        """
        if (fraction := self.job.model.track_fraction) < 1:
            drawn = np.random.default_rng([self.job.seed, number]).random(len(self.weights), np.float32) < fraction
            self.train.set_weight(self.weights * drawn)

    def losses(self) -> tuple[float, float]:
        """Return training and validation loss.

        XGBoost's own metric is made of probabilities in float32, where 1 − p is 0 beyond a logit of 17; it takes 1e-16
        then, and so a loss that does not depend on how wrong the logit is. This one is made of the logits, which
        XGBoost has at hand for both samples.
        """
        return (
            self._loss("train", self.train, self.weights),
            self._loss("validation", self.validation, self.validation_weights),
        )

    def _loss(self, name: str, table: Any, weights: NDArray[np.float32]) -> float:
        logits = self.booster.predict(table, output_margin=True).reshape(len(weights), self.outputs)
        sample, objective, total = self.prepared.split(name), self.job.training.objective, 0.0
        for rows in sample.chunks(_ROWS):
            classes = torch.from_numpy(class_indices(rows_of(sample.pdg, rows), self.species))
            part, weight = (torch.from_numpy(each[rows]).double() for each in (logits, weights))
            total += float(loss(objective, part, classes, weight)) * len(part)
        return total / float(weights.sum(dtype=np.float64))

    def state(self) -> dict[str, torch.Tensor]:
        """Return the trees in XGBoost's own format."""
        return {"booster": torch.frombuffer(bytearray(self.booster.save_raw("ubj")), dtype=torch.uint8)}

    def restore(self, state: dict[str, torch.Tensor], blocks: int) -> None:  # noqa: ARG002 - the state knows it
        """Take up the trees of a checkpoint."""
        self.booster.load_model(bytearray(state["booster"].numpy().tobytes()))

    def forest(self, blocks: int) -> Forest:
        """Return the trees of the first blocks."""
        return xgboost_forest(self.booster, self.outputs).trees(0, blocks * BLOCK * self.outputs)

    def offset(self) -> NDArray[np.float32]:
        """Return the logits before the first tree."""
        return self.start

    def _prior(self, counts: list[int], total: int) -> NDArray[np.float32]:
        """Return the logits that say for every track how frequent each species is."""
        if self.binary:
            each = np.array(counts, np.float64)
            return np.log(each / (total - each)).astype(np.float32)
        every = np.maximum([*counts, total - sum(counts)], 0.5)
        return np.log(every / total).astype(np.float32)

    def _parameters(self) -> dict[str, Any]:
        model = self.job.model
        parameters: dict[str, Any] = {
            "tree_method": "hist",
            "max_depth": model.depth,
            "eta": model.shrinkage,
            "seed": self.job.seed,
            "nthread": torch.get_num_threads(),
            "objective": "binary:logistic" if self.binary else "multi:softprob",
            "verbosity": 1,
        }
        return parameters if self.binary else parameters | {"num_class": self.outputs}

    def _weights(self, sample: Split, table: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return the weight of each track of a sample, by class and missing pattern."""
        weights = np.ones(len(sample), np.float32)
        if table is not None:
            for rows in sample.chunks():
                classes = class_indices(rows_of(sample.pdg, rows), self.species)
                pattern = tracks.feature_pattern(rows_of(sample.features, rows), self.prepared.features)
                weights[rows] = table[classes, pattern]
        return weights

    def _table(self, name: str, **reference: Any) -> Any:
        """Return a sample as XGBoost keeps it: binned."""
        network = Trees(self.job.model, Inputs.of(self.prepared.scaling), self.outputs)
        sample = self.prepared.split(name)
        several = self.outputs > 1

        def batch(rows: slice) -> dict[str, NDArray[Any]]:
            classes = class_indices(np.asarray(sample.pdg[rows]), self.species)
            label = (classes[:, None] == np.arange(self.outputs)) if self.binary else classes
            margin = np.tile(self.start, (len(classes), 1))
            return {
                "data": tree_columns(network, self.prepared, sample.features[rows]),
                "label": label.astype(np.float32) if several else label[:, 0].astype(np.float32),
                "base_margin": margin if several else margin[:, 0],
            }

        iterator = _iterator(self.xgboost, [*sample.chunks(_ROWS)], batch)
        return self.xgboost.QuantileDMatrix(iterator, missing=np.nan, nthread=torch.get_num_threads(), **reference)


def _iterator(xgboost: Any, parts: list[slice], batch: Callable[[slice], dict[str, NDArray[Any]]]) -> Any:
    """Return what XGBoost reads a sample from, chunk by chunk, as often as it wants."""

    class Chunks(xgboost.DataIter):  # type: ignore[misc]
        def __init__(self) -> None:
            self.position = 0
            super().__init__(release_data=True)

        def reset(self) -> None:
            self.position = 0

        def next(self, input_data: Callable[..., None]) -> bool:
            if self.position == len(parts):
                return False
            input_data(**batch(parts[self.position]))
            self.position += 1
            return True

    return Chunks()


def xgboost_forest(booster: Any, outputs: int) -> Forest:
    """Return the trees of a booster, in its order: round by round, one tree per output."""
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]
    return joined(
        _tree(each, int(target) if outputs > 1 else 0)
        for each, target in zip(model["trees"], model["tree_info"], strict=True)
    )


def _tree(own: dict[str, Any], target: int) -> Forest:
    condition = np.array(own["split_conditions"], np.float32)
    return tree(
        feature=np.array(own["split_indices"], np.int64),
        # XGBoost goes left below the condition; at or below the next smaller float32 is the same.
        threshold=np.nextafter(condition, np.float32(-np.inf)),
        left=np.array(own["left_children"], np.int64),
        right=np.array(own["right_children"], np.int64),
        missing_left=np.array(own["default_left"], np.bool_),
        values=condition[:, None],  # at leaves it is their value
        target=target,
    )
