"""The columns that networks compute with: features brought to order 1, and quantities derived from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pidml.models.base import Inputs, constant
from pidml.models.physics import PhysicsInputs

#: Momentum columns enter as logarithm and direction instead, where these can be computed.
_REPLACED = ("fP", "fPt", "fPx", "fPy", "fPz")
#: Largest standardised value that is let through: what lies beyond is an outlier, and must not dominate.
_LARGEST = 8.0
#: Raw features whose values are far from order 1, with the factor that brings them there.
_FACTORS = {"fTRDPattern": 1 / 64}


class Columns(nn.Module):
    """Maps standardised features to columns of order 1.

    Attributes:
        size: number of columns.
        token: per column, the index of the feature that it is about.
    """

    kept: Tensor
    factor: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.physics = PhysicsInputs(inputs)
        replaced = _REPLACED if self.physics.has_axes else ()
        kept = [index for index, name in enumerate(inputs.names) if name not in replaced]
        scaled = [1.0 if inputs.std[index] != 1.0 else _FACTORS.get(inputs.names[index], 1.0) for index in kept]
        self.register_buffer("kept", constant(kept, torch.int64), persistent=False)
        self.register_buffer("factor", constant(scaled), persistent=False)
        self.token = (*kept, *(inputs.index(name) for name in self.physics.source))
        self.size = len(self.token)

    def forward(self, standardised: Tensor) -> Tensor:
        """Return the columns, float32 ``(batch, size)``, 0 where missing; never NaN or infinite."""
        values = (standardised[:, self.kept] * self.factor).clamp(-_LARGEST, _LARGEST)
        columns = torch.cat([values, self.physics(standardised)], dim=1)
        return torch.where(torch.isnan(columns), 0.0, columns)
