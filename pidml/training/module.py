"""The network as Lightning trains it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from pidml.models import Network
from pidml.models.pieces import pieces
from pidml.spec.model_sections import Training
from pidml.training.adaptation import Adversary
from pidml.training.objective import loss
from pidml.training.schedules import learning_rate_factor

_SGD_MOMENTUM = 0.9


class TrainingModule(pl.LightningModule):
    """Steps and optimiser. Sums of losses stay on the device: reading them at every step would wait for it.

    Attributes:
        train_sum, validation_sum: sum of the losses of all tracks of the epoch so far, and their number; shape (2,).
        adversary: what adapts the network to experimental data, if anything does; batches then hold such tracks too.
    """

    train_sum: Tensor
    validation_sum: Tensor

    def __init__(
        self, network: Network, training: Training, steps_per_epoch: int, adversary: Adversary | None = None
    ) -> None:
        super().__init__()
        self.adversary = adversary
        self.network, self.training_spec, self.steps_per_epoch = network, training, steps_per_epoch
        self.register_buffer("train_sum", torch.zeros(2, dtype=torch.float64), persistent=False)
        self.register_buffer("validation_sum", torch.zeros(2, dtype=torch.float64), persistent=False)

    def training_step(self, batch: tuple[Tensor, ...], _: int) -> Tensor:
        """Return the mean loss of a batch."""
        encoded, classes, *experimental = batch
        if self.adversary is None:
            logits, adversarial = self.network.body(encoded), None
        else:
            logits, adversarial = self.adversary.step(self.network, encoded, experimental[0], self.global_step)
        value = loss(self.training_spec.objective, logits.float(), classes)
        _add(self.train_sum, value, len(classes))
        return value if adversarial is None else value + adversarial

    def validation_step(self, batch: tuple[Tensor, ...], _: int) -> None:
        """Add the loss of a batch to the sum; wide networks take it in pieces. Experimental batches have no classes."""
        if len(batch) == 1:
            assert self.adversary is not None
            self.adversary.judge_experimental(self.network, batch[0])
            return
        for encoded, classes in pieces(self.network.evaluation_batch, *batch):
            if self.adversary is None:
                logits = self.network.body(encoded)
            else:
                logits = self.adversary.judge_simulated(self.network, encoded)
            value = loss(self.training_spec.objective, logits.float(), classes)
            _add(self.validation_sum, value, len(classes))

    def configure_optimizers(self) -> Any:
        """Return the optimiser, with weight decay on matrices only, and the schedule of its learning rate per step."""
        spec = self.training_spec
        groups = [
            {"params": [p for p in self.parameters() if p.ndim > 1], "weight_decay": spec.weight_decay},
            {"params": [p for p in self.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        # Gradient scaling and clipping together need the gradients unscaled first, which fused optimisers do not do.
        fused = not (spec.precision == "16-mixed" and spec.gradient_clip > 0)
        optimizer: torch.optim.Optimizer
        if spec.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, spec.learning_rate, _SGD_MOMENTUM, nesterov=True, fused=fused)
        else:
            optimizer = torch.optim.AdamW(groups, spec.learning_rate, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(spec, self.steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _add(total: Tensor, value: Tensor, number: int) -> None:
    total[0] += value.detach() * number
    total[1] += number
