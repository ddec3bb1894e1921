"""Fits models that grow tree by tree: ten trees (or rounds) are an epoch, after which a checkpoint is written.

How epochs are recorded, when training stops and which epoch is kept are the same as for networks; what is kept of the
model is the trees up to the best epoch.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pidml.atomic import atomic_file, write_text
from pidml.data.prepared import PreparedDataset
from pidml.errors import Diverged, Interrupted
from pidml.models import Inputs
from pidml.models.tree_arrays import Forest
from pidml.models.trees import Link, Trees
from pidml.spec import JobSpec
from pidml.training.fit import Fit, fingerprint, show_inputs
from pidml.training.objective import output_count
from pidml.training.record import CHECKPOINT, HISTORY, AfterEpoch, Epoch, Record, kept

logger = logging.getLogger(__name__)

#: Trees, or boosting rounds, of an epoch.
BLOCK = 10


class Grower(Protocol):
    """A model that grows by blocks of trees.

    Attributes:
        epochs: largest number of blocks.
        rate: factor on what a block adds.
        tracks: tracks that the trees of a block are grown on, summed over the trees.
        link: how the sum of the leaves becomes a logit.
        remedy: what helps if the loss becomes NaN or infinite.
    """

    epochs: int
    rate: float
    tracks: int
    link: Link
    remedy: str

    def grow(self, block: int) -> None:
        """Add the trees of a block; what it does depends on the seed, the block's number and the trees so far."""

    def losses(self) -> tuple[float, float]:
        """Return the loss on the training and the validation sample, nats per track."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return the trees so far, as a checkpoint holds them."""

    def restore(self, state: dict[str, torch.Tensor], blocks: int) -> None:
        """Take up the trees of a checkpoint."""

    def forest(self, blocks: int) -> Forest:
        """Return the trees of the first blocks."""

    def offset(self) -> NDArray[np.float32]:
        """Return what is added to each logit, (outputs,)."""


def fit_blocks(
    grower: Grower, prepared: PreparedDataset, job: JobSpec, species: Sequence[str], work_dir: Path,
    after_epoch: AfterEpoch | None,
) -> Fit:  # fmt: skip
    """Grow a model to its end, from the beginning or from the last checkpoint in ``work_dir``.

    Raises:
        Interrupted: ``after_epoch`` asked for a stop.
        Diverged: the loss became NaN or infinite.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    record, state = _recorded(work_dir / CHECKPOINT, fingerprint(prepared, job, species))
    resumed = len(record.rows)
    if resumed:
        logger.info("resuming after epoch %d of %s", record.rows[-1].epoch, work_dir / CHECKPOINT)
        grower.restore(state, resumed)
    for block in range(resumed, 0 if record.finished else grower.epochs):
        row = _epoch(grower, block, kept(record, work_dir))
        record.add(row, job.training.patience, job.training.min_improvement)
        record.finished |= block + 1 == grower.epochs
        _save(work_dir, record, grower)
        _tell(row, record)
        asked = after_epoch(row, grower.epochs) if after_epoch else False
        if record.finished:
            break
        if asked:
            raise Interrupted(f"stopped after epoch {block + 1}, as asked", "the next run goes on from there")
    network = Trees(job.model, Inputs.of(prepared.scaling), output_count(job.training.objective, len(species)))
    network.plant(grower.forest(record.best_epoch + 1), grower.link)
    network.offset.copy_(torch.from_numpy(grower.offset()))
    show_inputs(network, prepared)
    return Fit(network.eval(), record, "cpu", resumed)


def _epoch(grower: Grower, block: int, left: str) -> Epoch:
    started = time.perf_counter()
    grower.grow(block)
    seconds = time.perf_counter() - started
    train_loss, validation_loss = grower.losses()
    if not math.isfinite(train_loss + validation_loss):
        raise Diverged(
            f"the loss became {train_loss} (training sample), {validation_loss} (validation) in epoch {block}; {left}",
            grower.remedy,
        )
    return Epoch(block, train_loss, validation_loss, grower.rate, seconds, grower.tracks / seconds)


def _recorded(checkpoint: Path, identity: str) -> tuple[Record, dict[str, torch.Tensor]]:
    """Return record and trees of a checkpoint of this very fit, else an empty record."""
    if not checkpoint.is_file():
        return Record(identity), {}
    try:
        content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
        record, state = Record.of(content["record"]), dict(content["trees"])
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        logger.warning("%s cannot be read (%s): training starts afresh", checkpoint, error)
        return Record(identity), {}
    if record.fingerprint != identity:
        logger.info("%s belongs to other settings or data: training starts afresh", checkpoint)
        return Record(identity), {}
    return record, state


def _save(work_dir: Path, record: Record, grower: Grower) -> None:
    with atomic_file(work_dir / CHECKPOINT) as temporary:
        torch.save({"record": record.state(), "trees": grower.state()}, temporary)
    write_text(work_dir / HISTORY, record.csv())


def _tell(row: Epoch, record: Record) -> None:
    logger.info(
        "epoch %d (%d trees per output): training loss %.5f, validation loss %.5f%s, %.1f s, %.0f tracks/s",
        row.epoch, BLOCK * (row.epoch + 1), row.train_loss, row.val_loss,
        " (best)" if record.best_epoch == row.epoch else "", row.seconds, row.tracks_per_second,
    )  # fmt: skip


def tree_columns(network: Trees, prepared: PreparedDataset, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what trees compare, float32 (tracks, columns), of raw features (tracks, features)."""
    with torch.inference_mode():
        columns: NDArray[np.float32] = network.encode(torch.from_numpy(prepared.scaling.apply(features))).numpy()
    return columns
