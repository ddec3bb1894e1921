"""Feature-set embedding with encoder blocks and attention pooling, masked where values are missing.

Each feature is a token: which feature it is, and its value. Missing features are tokens too, so that every track has
the same shape, but an additive mask takes them out of the attention's keys and of the pooling: the result for a track
equals that of a network that was only given the tokens that are there (sets of observations: Horn et al., ICML 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pidml.models.base import Inputs, Network, constant
from pidml.models.columns import Columns
from pidml.models.layers import Dropout, perceptron
from pidml.spec.model_sections import Model

#: Added to the attention score of a missing token: its weight becomes exactly 0, and stays finite if all are missing.
MASKED = -1e9


class Embedding(nn.Module):
    """Token embedding: an affine map of the feature's columns with weights of its own, then a perceptron for all.

    The affine maps of all features are one matrix product; its matrix is 0 outside each token's block.
    """

    owner: Tensor

    def __init__(self, columns: Columns, features: int, hidden: tuple[int, ...], width: int, dropout: float) -> None:
        super().__init__()
        self.features, first = features, hidden[0]
        owner = functional.one_hot(constant(columns.token, torch.int64), features).to(torch.float32)
        self.register_buffer("owner", owner[:, :, None], persistent=False)
        scale = 0.5 * owner.sum(dim=0)[list(columns.token)] ** -0.5
        self.weight = nn.Parameter(torch.randn(columns.size, first) * scale[:, None])
        self.bias = nn.Parameter(torch.randn(features, first) * 0.5)
        self.rest, last = perceptron(first, hidden[1:], dropout)
        self.final = nn.Linear(last, width)

    def forward(self, columns: Tensor) -> Tensor:
        """Return tokens ``(batch · features, width)``."""
        weight = (self.owner * self.weight[:, None, :]).flatten(1)
        first = torch.addmm(self.bias.flatten(), columns, weight).relu()
        tokens: Tensor = self.final(self.rest(first.view(-1, self.bias.shape[1])))
        return tokens


class Block(nn.Module):
    """Encoder block: self-attention and a feed-forward part, each normalised before and added to what came in.

    Tokens of all tracks are the rows of one matrix, so that affine maps are single operations in an exported graph. The
    usual factor of attention scores, 1/√size, is in the initial weights of the queries instead.
    """

    def __init__(self, tokens: int, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.heads, self.size = tokens, heads, width // heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        with torch.no_grad():
            self.query_key_value.weight[:width] *= self.size**-0.5
        self.mix = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Return rows ``(batch · tokens, width)``; ``mask`` ``(batch, 1, 1, tokens)`` is added to scores of keys."""
        parts = self.query_key_value(self.norm_attention(rows)).view(-1, self.tokens, 3, self.heads, self.size)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = torch.softmax(query @ key.transpose(-1, -2) + mask, dim=-1) @ value
        rows = rows + self.dropout(self.mix(seen.transpose(1, 2).reshape(-1, self.heads * self.size)))
        forward = self.narrow(functional.relu(self.widen(self.norm_forward(rows))))
        result: Tensor = rows + self.dropout(forward)
        return result


class Attention(Network):
    """Feature-set embedding, encoder blocks, attention pooling, outputs."""

    evaluation_batch = 4096

    def __init__(self, model: Model, inputs: Inputs, outputs: int) -> None:
        super().__init__()
        self.columns, self.spread = Columns(inputs), inputs.spread
        self.features = len(inputs.names)
        width = model.d_model
        self.embedding = Embedding(self.columns, self.features, model.embed_hidden, width, model.dropout)
        self.blocks = nn.ModuleList(
            Block(self.features, width, model.num_heads, model.ff_hidden, model.dropout)
            for _ in range(model.num_blocks)
        )
        self.norm = nn.LayerNorm(width)
        hidden, last = perceptron(width, model.pool_hidden, 0.0)
        self.pooling = nn.Sequential(hidden, nn.Linear(last, width))
        self.head, last = perceptron(width, model.head_hidden, model.dropout)
        self.output = nn.Linear(last, outputs)

    def encode(self, standardised: Tensor) -> Tensor:
        """Return columns (0 where missing) and, per feature, the value that masks it."""
        columns, missing = self.columns(standardised)
        return torch.cat([columns, missing * MASKED], dim=1)

    def latent(self, encoded: Tensor) -> Tensor:
        """Return what the outputs are made of: the pooled tokens after the head's hidden layers, ``(batch, width)``."""
        columns, mask = encoded[:, : self.columns.size], encoded[:, self.columns.size :]
        rows = self.embedding(columns)
        for block in self.blocks:
            rows = block(rows, mask[:, None, None, :])
        rows = self.norm(rows)
        scores = self.pooling(rows).view(-1, self.features, rows.shape[1])
        weights = torch.softmax(scores + mask[:, :, None], dim=1)
        hidden: Tensor = self.head((weights * rows.view_as(scores)).sum(dim=1))
        return hidden
