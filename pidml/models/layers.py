"""Layers that networks share."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

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
    """Return hidden layers (affine map, ReLU, dropout) and the width of the last one.

    A dropout of 0 is a layer as well, so that the names of weights do not depend on it.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(), Dropout(dropout)]
        inputs = width
    result = nn.Sequential(*layers)
    result.register_load_state_dict_pre_hook(_renumber)  # type: ignore[no-untyped-call]
    return result, inputs


def _renumber(layers: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: Any) -> None:  # noqa: ARG001
    """Give weights the names of today that were written when a dropout of 0 was no layer: 0, 2, 4 become 0, 3, 6."""
    if f"{prefix}2.weight" not in state:  # today the third layer is a dropout, which has no weights
        return
    own = {name: name.removeprefix(prefix).split(".", 1) for name in state if name.startswith(prefix)}
    moved = {f"{prefix}{int(number) // 2 * 3}.{kind}": state.pop(name) for name, (number, kind) in own.items()}
    state.update(moved)
