"""Layers that networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Inverted dropout that draws eight random bits per activation instead of a random float.

    Drawing a float per activation takes a third of an attention network's training time on a CPU. The probability is
    rounded to a multiple of 1/256, at least 1/256 if it is not 0. On other devices the usual dropout is used.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.threshold = min(256, max(round(256 * probability), int(probability > 0)))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with activations dropped at random in training, else ``x`` itself."""
        if not self.training or self.threshold == 0:
            return x
        if x.device.type != "cpu" or self.threshold == 256:
            return functional.dropout(x, self.probability, training=True)
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.threshold
        return x * (kept.to(x.dtype) * (256 / (256 - self.threshold)))


def perceptron(inputs: int, hidden: Sequence[int], dropout: float) -> tuple[nn.Sequential, int]:
    """Return hidden layers (affine map, ReLU, dropout) and the width of the last one."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        if dropout > 0:
            layers.append(Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers), inputs
