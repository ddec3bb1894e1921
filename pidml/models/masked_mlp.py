"""Values and missing bits through hidden layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pidml.data.taught import Taught
from pidml.models.base import Inputs, Network
from pidml.models.columns import Columns
from pidml.models.layers import perceptron
from pidml.spec.model_sections import Model


class MaskedMlp(Network):
    """A multilayer perceptron whose inputs are the values (0 where missing) and, per feature, whether it is missing."""

    def __init__(self, model: Model, inputs: Inputs, outputs: int) -> None:
        super().__init__()
        self.names = inputs.names
        self.columns, self.spread = Columns(inputs), inputs.spread
        self.hidden, width = perceptron(self.columns.size + len(inputs.names), model.hidden, model.dropout)
        self.output = nn.Linear(width, outputs)

    @torch.no_grad()
    def settle(self, taught: Taught) -> None:
        """Take away the weights of missing bits that hardly any training track had, which hardly anything trained.

        A track that lacks such a feature is answered by the columns alone, 0 where made of it.
        """
        first = next(self.hidden.children(), self.output)
        assert isinstance(first, nn.Linear)
        for name in taught.hardly_lacking:
            first.weight[:, self.columns.size + self.names.index(name)] = 0.0

    def encode(self, standardised: Tensor) -> Tensor:
        """Return columns (0 where missing) and missing bits."""
        return torch.cat(self.columns(standardised), dim=1)

    def latent(self, encoded: Tensor) -> Tensor:
        """Return the last hidden layer, ``(batch, width)``."""
        hidden: Tensor = self.hidden(encoded)
        return hidden
