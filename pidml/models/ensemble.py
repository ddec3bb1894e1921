"""One multilayer perceptron per missing pattern, all in one graph."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from pidml import tracks
from pidml.data.taught import Taught
from pidml.models.base import Inputs, Network, constant
from pidml.models.columns import Columns
from pidml.models.layers import Dropout
from pidml.spec.model_sections import Model


class Ensemble(Network):
    """Perceptrons side by side as batched matrix products; a track takes the result of its missing pattern's.

    Patterns are those of :class:`pidml.tracks.Missing` that the features can show. Missing values enter as 0.
    """

    evaluation_batch = 16_384
    detector: Tensor
    pattern: Tensor

    def __init__(self, model: Model, inputs: Inputs, outputs: int) -> None:
        super().__init__()
        self.columns, self.spread = Columns(inputs), inputs.spread
        own = {f: [float(n in names) for n in inputs.names] for f, names in tracks.DETECTOR_COLUMNS.items()}
        self.flags, owned = [f for f, row in own.items() if any(row)], [row for row in own.values() if any(row)]
        self.experts = 2 ** len(owned)
        self.register_buffer(
            "detector", constant(owned).reshape(-1, len(inputs.names)).T.contiguous(), persistent=False
        )
        bits = [[float(number >> bit & 1) for bit in range(len(owned))] for number in range(self.experts)]
        self.register_buffer("pattern", constant(bits).reshape(self.experts, len(owned)), persistent=False)
        widths = (self.columns.size, *model.hidden, outputs)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in itertools.pairwise(widths):
            bound = 1 / math.sqrt(before)  # as nn.Linear
            self.weights.append(nn.Parameter(torch.empty(self.experts, before, after).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(self.experts, 1, after).uniform_(-bound, bound)))
        self.dropout = Dropout(model.dropout)

    @torch.no_grad()
    def rescale_output(self, factor: Tensor, offset: Tensor) -> None:
        """See :meth:`Network.rescale_output`."""
        self.weights[-1].mul_(factor)
        self.biases[-1].mul_(factor).add_(offset)

    @torch.no_grad()
    def settle(self, taught: Taught) -> None:
        """Give a perceptron whose pattern was not learned the weights of the nearest that was.

        Columns of detectors that the latter never saw get no weight.
        """
        number = {sum(1 << i for i, flag in enumerate(self.flags) if p & flag): p for p in taught.possible}
        expert = {pattern: index for index, pattern in number.items()}
        for index, pattern in number.items():
            if (near := taught.nearest(pattern)) == pattern:
                continue
            for parameter in (*self.weights, *self.biases):
                parameter[index] = parameter[expert[near]]
            unseen = self.detector @ self.pattern[expert[near]]
            self.weights[0][index][unseen @ self.columns.made_of > 0.5] = 0.0

    def encode(self, standardised: Tensor) -> Tensor:
        """Return columns (0 where missing) and, per perceptron, 1 for the one whose pattern it is, else 0."""
        columns, missing = self.columns(standardised)
        lacking = (missing @ self.detector > 0.5).to(missing.dtype)
        chosen = ((lacking[:, None, :] - self.pattern).abs().sum(dim=2) < 0.5).to(missing.dtype)
        return torch.cat([columns, chosen], dim=1)

    def body(self, encoded: Tensor) -> Tensor:
        """Return logits ``(batch, outputs)``."""
        columns, chosen = encoded[:, : self.columns.size], encoded[:, self.columns.size :]
        rows = columns[None]
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if number:
                rows = self.dropout(rows.relu())
            rows = rows @ weight + bias
        return (rows * chosen.T[:, :, None]).sum(dim=0)
