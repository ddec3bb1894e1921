"""Values and missing bits through hidden layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pidml.models.base import Inputs, Network
from pidml.models.columns import Columns
from pidml.models.layers import perceptron
from pidml.spec.model_sections import Model


class MaskedMlp(Network):
    """A multilayer perceptron whose inputs are the values (0 where missing) and, per feature, whether it is missing."""

    def __init__(self, model: Model, inputs: Inputs, outputs: int) -> None:
        super().__init__()
        self.columns, self.spread = Columns(inputs), inputs.spread
        self.hidden, width = perceptron(self.columns.size + len(inputs.names), model.hidden, model.dropout)
        self.output = nn.Linear(width, outputs)

    def encode(self, standardised: Tensor) -> Tensor:
        """Return columns (0 where missing) and missing bits."""
        return torch.cat(self.columns(standardised), dim=1)

    def latent(self, encoded: Tensor) -> Tensor:
        """Return the last hidden layer, ``(batch, width)``."""
        hidden: Tensor = self.hidden(encoded)
        return hidden
