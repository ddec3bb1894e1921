"""What a training remembers between epochs: history, best weights, when to stop; saved at every epoch, atomically."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from pidml.atomic import atomic_file, write_text
from pidml.errors import Diverged, Interrupted
from pidml.training.adaptation import balanced, coefficient_at
from pidml.training.module import TrainingModule
from pidml.training.warm_start import CHECKPOINT_KEY

logger = logging.getLogger(__name__)

CHECKPOINT, HISTORY = "last.ckpt", "history.csv"
#: Steps between two looks at the loss for NaN; each look waits for the device.
_LOOK_EVERY = 100


@dataclass(frozen=True)
class Epoch:
    """One row of the history; losses in nats per track, ``lr`` as used last, seconds of training without validation.

    With domain adaptation there are also the loss and the accuracy of the discriminator on the validation samples (both
    domains count the same, 0.5 is chance), and the largest coefficient of the epoch.
    """

    epoch: int
    train_loss: float
    val_loss: float
    lr: float
    seconds: float
    tracks_per_second: float
    domain_loss: float | None = None
    domain_accuracy: float | None = None
    coefficient: float | None = None


@dataclass
class Record:
    """The memory of a training.

    Attributes:
        fingerprint: identity of what is trained, on what; a checkpoint of another one is not used.
        rows: the history.
        best_epoch: the epoch with the smallest validation loss, −1 before the first.
        best_loss: that loss.
        best_state: the network's weights after that epoch.
        reference: validation loss that the next improvement is measured against.
        waited: epochs without improvement.
        finished: whether the training came to its end.
        split: parts in which a process takes its share of a batch; more than 1 after memory ran out.
        device: name of the device that trained last.
    """

    fingerprint: str
    rows: list[Epoch] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    reference: float = math.inf
    waited: int = 0
    finished: bool = False
    split: int = 1
    device: str = ""

    def add(self, row: Epoch, patience: int, min_improvement: float) -> bool:
        """Take in an epoch; return whether it is the best so far. Sets ``finished`` if patience is at its end.

        With domain adaptation the last epoch is the best: the loss on simulation cannot tell how alike the domains are,
        and is smallest before they are made so.
        """
        self.rows.append(row)
        if row.domain_loss is not None:
            self.best_loss, self.best_epoch = row.val_loss, row.epoch
            return True
        if row.val_loss < self.reference * (1 - min_improvement) or math.isinf(self.reference):
            self.reference, self.waited = row.val_loss, 0
        else:
            self.waited += 1
            self.finished = self.waited >= patience
        if row.val_loss < self.best_loss:
            self.best_loss, self.best_epoch = row.val_loss, row.epoch
            return True
        return False

    def csv(self) -> str:
        """Return the history as CSV text."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        names = [each.name for each in fields(Epoch) if all(getattr(row, each.name) is not None for row in self.rows)]
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in self.rows)
        return stream.getvalue()

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors, as a checkpoint holds them."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {
            "rows": [[getattr(row, each.name) for each in fields(Epoch)] for row in self.rows]
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> Record:
        """Return the record that :meth:`state` described."""
        return cls(**(state | {"rows": [Epoch(*row) for row in state["rows"]]}))


def kept(record: Record, work_dir: Path) -> str:
    """Say what a training that cannot go on leaves."""
    if not record.rows:
        return "no epoch was completed"
    return f"the checkpoint after epoch {record.rows[-1].epoch} is kept as {work_dir / CHECKPOINT}"


#: Called with an epoch and the largest number of epochs; returns whether to stop (and resume in a later run).
AfterEpoch = Callable[[Epoch, int], bool]


class Recorder(pl.Callback):
    """Keeps the record: measures, stops early, refuses to go on with NaN, and writes the checkpoint of every epoch.

    Args:
        record: the record to go on with.
        work_dir: where the checkpoint and the history are written.
        seed: random choices inside the network (dropout) in an epoch depend on this and on the epoch's number alone.
        tracks_per_epoch: for the figures of speed.
        after_epoch: told of every epoch once its checkpoint is written; may ask for a stop.
        description: what the weights in the checkpoint are of, for a later warm start.
    """

    def __init__(
        self, record: Record, work_dir: Path, seed: int, tracks_per_epoch: int,
        after_epoch: AfterEpoch | None = None, description: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.description = dict(description or {})
        self.record, self.work_dir, self.seed, self.tracks_per_epoch = record, work_dir, seed, tracks_per_epoch
        self.after_epoch = after_epoch
        self._started = self._seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning puts into the checkpoint."""
        return self.record.state()

    def on_save_checkpoint(
        self,
        trainer: pl.Trainer,  # noqa: ARG002 - Lightning passes it
        pl_module: pl.LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Say in the checkpoint what its weights are of."""
        checkpoint[CHECKPOINT_KEY] = self.description

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, the sums and the random numbers."""
        assert isinstance(pl_module, TrainingModule)
        pl_module.train_sum.zero_()
        torch.manual_seed((self.seed * 1_000_003 + trainer.current_epoch * 8191 + trainer.global_rank) % 2**63)
        self._started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ARG002 - Lightning passes it
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Look for NaN now and then, and stop the clock after the last batch."""
        assert isinstance(pl_module, TrainingModule)
        last = batch_idx + 1 == trainer.num_training_batches
        if batch_idx % _LOOK_EVERY == 0 or last:
            self._check(float(pl_module.train_sum[0]), trainer)
        if last:
            self._seconds = time.perf_counter() - self._started

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start the sum of the validation loss."""
        assert isinstance(pl_module, TrainingModule)
        pl_module.validation_sum.zero_()
        if pl_module.adversary is not None:
            pl_module.adversary.validation_sum.zero_()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write down the epoch, decide whether to stop, save."""
        assert isinstance(pl_module, TrainingModule)
        sums = trainer.strategy.reduce(torch.stack([pl_module.train_sum, pl_module.validation_sum]), reduce_op="sum")
        assert isinstance(sums, torch.Tensor)
        (train_loss, validation_loss) = (float(total / max(count, 1.0)) for total, count in sums.tolist())
        self._check(train_loss, trainer)
        self._check(validation_loss, trainer)
        row = Epoch(
            epoch=trainer.current_epoch,
            train_loss=train_loss,
            val_loss=validation_loss,
            lr=float(trainer.optimizers[0].param_groups[0]["lr"]),
            seconds=self._seconds,
            tracks_per_second=self.tracks_per_epoch / self._seconds,
            **self._domain(trainer, pl_module),
        )
        spec = pl_module.training_spec
        if self.record.add(row, spec.patience, spec.min_improvement):
            state = pl_module.network.state_dict()
            self.record.best_state = {name: value.detach().cpu().clone() for name, value in state.items()}
        self.record.finished |= trainer.current_epoch + 1 >= spec.max_epochs
        if self.record.finished:
            trainer.should_stop = True
        self._save(trainer, row)
        asked = self.after_epoch(row, spec.max_epochs) if self.after_epoch and trainer.is_global_zero else False
        if asked and not self.record.finished:
            raise Interrupted(f"stopped after epoch {row.epoch + 1}, as asked", "the next run goes on from there")

    def _domain(self, trainer: pl.Trainer, module: TrainingModule) -> dict[str, float]:
        """Return the columns about domain adaptation, if there is one."""
        if (adversary := module.adversary) is None:
            return {}
        sums = trainer.strategy.reduce(adversary.validation_sum.clone(), reduce_op="sum")
        assert isinstance(sums, torch.Tensor)
        loss, accuracy = balanced(sums)
        self._check(loss, trainer)
        last = coefficient_at(adversary.adaptation, trainer.global_step / adversary.total_steps)
        return {"domain_loss": loss, "domain_accuracy": accuracy, "coefficient": last}

    def _save(self, trainer: pl.Trainer, row: Epoch) -> None:
        if trainer.world_size > 1:  # every process takes part in collecting a checkpoint; the first one writes
            content = trainer._checkpoint_connector.dump_checkpoint()
            if trainer.is_global_zero:
                with atomic_file(self.work_dir / CHECKPOINT) as temporary:
                    torch.save(content, temporary)
            trainer.strategy.barrier()
        else:
            with atomic_file(self.work_dir / CHECKPOINT) as temporary:
                trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            write_text(self.work_dir / HISTORY, self.record.csv())
            logger.info(
                "epoch %d: training loss %.5f, validation loss %.5f%s, learning rate %.2g, %.1f s, %.0f tracks/s",
                row.epoch, row.train_loss, row.val_loss, " (best)" if self.record.best_epoch == row.epoch else "",
                row.lr, row.seconds, row.tracks_per_second,
            )  # fmt: skip

    def _check(self, value: float, trainer: pl.Trainer) -> None:
        if math.isfinite(value):
            return
        module = trainer.lightning_module
        assert isinstance(module, TrainingModule)
        clip = module.training_spec.gradient_clip
        remedies = [f"lower training.learning_rate (now {module.training_spec.learning_rate:g})"]
        if module.adversary is not None:
            remedies.append(f"lower adaptation.coefficient (now {module.adversary.adaptation.coefficient:g})")
        remedies.append(f"lower training.gradient_clip (now {clip:g})" if clip else "set training.gradient_clip: 1.0")
        raise Diverged(
            f"the loss became {value} in epoch {trainer.current_epoch}, step {trainer.global_step}; "
            f"{kept(self.record, self.work_dir)}",
            ", or ".join(remedies),
        )
