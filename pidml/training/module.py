"""The network as Lightning trains it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from pidml.models import Network
from pidml.models.pieces import pieces
from pidml.spec.model_sections import Training
from pidml.training.adaptation import Adversary
from pidml.training.compiled import compiled
from pidml.training.objective import loss
from pidml.training.room import Batch
from pidml.training.schedules import learning_rate_factor

_SGD_MOMENTUM = 0.9


class TrainingModule(pl.LightningModule):
    """Steps and optimiser. Sums of losses stay on the device: reading them at every step would wait for it.

    A batch may be taken in several parts, by other processes or one after the other (``parts``): gradients are then
    averaged over the parts, each of which counts by its size, so that the step is that of the whole batch.

    Attributes:
        train_sum, validation_sum: sum of the losses of this process's tracks in the epoch so far, and of their weights
            (without weights: their number); shape (2,).
        adversary: what adapts the network to experimental data, if anything does; batches then hold such tracks too.

    Args:
        network: what is trained.
        training: objective, optimiser and schedule are read.
        steps_per_epoch: optimiser steps per epoch.
        batch_rows: tracks of a batch, all its parts together.
        parts: number of parts of a batch.
        adversary: see above.
    """

    train_sum: Tensor
    validation_sum: Tensor

    def __init__(
        self, network: Network, training: Training, steps_per_epoch: int, batch_rows: int, parts: int = 1,
        adversary: Adversary | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.adversary = adversary
        self.network, self.training_spec, self.steps_per_epoch = network, training, steps_per_epoch
        self.batch_rows, self.parts = batch_rows, parts
        self.register_buffer("train_sum", torch.zeros(2, dtype=torch.float64), persistent=False)
        self.register_buffer("validation_sum", torch.zeros(2, dtype=torch.float64), persistent=False)
        self._body = compiled(network.body) if training.compile else network.body

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the mean loss of a batch, or of a part of one so that the average over all parts is that mean."""
        encoded, *truth = batch
        if self.adversary is None:
            logits, adversarial = self._body(encoded), None
        else:
            *truth, experimental = truth
            logits, adversarial = self.adversary.step(self.network, encoded, experimental, self.global_step)
        value = loss(self.training_spec.objective, logits.float(), *truth)
        _add(self.train_sum, value, truth)
        value = value if adversarial is None else value + adversarial
        return value if self.parts == 1 else value * (len(encoded) * self.parts / self.batch_rows)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Add the loss of a batch to the sum; wide networks take it in pieces. Experimental batches have no classes."""
        for encoded, *truth in pieces(max(1, self.network.evaluation_batch // self.parts), *batch):
            if self.adversary is None:
                logits = self.network.body(encoded)
            elif truth:
                logits = self.adversary.judge_simulated(self.network, encoded)
            else:
                self.adversary.judge_experimental(self.network, encoded)
                continue
            value = loss(self.training_spec.objective, logits.float(), *truth)
            _add(self.validation_sum, value, truth)

    def configure_optimizers(self) -> Any:
        """Return the optimiser, with weight decay on matrices only, and the schedule of its learning rate per step."""
        spec = self.training_spec
        groups = [
            {"params": [p for p in self.parameters() if p.ndim > 1], "weight_decay": spec.weight_decay},
            {"params": [p for p in self.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        # Mixed precision clips gradients that the optimiser has not to unscale itself, as fused ones do.
        fused = not (spec.precision != "32" and spec.gradient_clip > 0)
        optimizer: torch.optim.Optimizer
        if spec.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, spec.learning_rate, _SGD_MOMENTUM, nesterov=True, fused=fused)
        else:
            optimizer = torch.optim.AdamW(groups, spec.learning_rate, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(spec, self.steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _add(total: Tensor, value: Tensor, truth: Sequence[Tensor]) -> None:
    total[0] += value.detach() * len(truth[0])
    total[1] += truth[1].sum() if len(truth) > 1 else len(truth[0])
