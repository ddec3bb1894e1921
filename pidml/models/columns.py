"""The columns that networks compute with: features brought to order 1, and quantities derived from them.

NaN meets two operations only (is it NaN? then take 0), so the result does not depend on what a runtime's minimum,
maximum or logarithm does with NaN.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pidml.models.base import Inputs, constant
from pidml.models.physics import PhysicsInputs
from pidml.models.spread import FACTORS, LARGEST


class Columns(nn.Module):
    """Maps standardised features to columns of order 1.

    Attributes:
        size: number of columns.
        token: per column, the index of the feature that it is about.
    """

    kept: Tensor
    factor: Tensor
    centre: Tensor
    width: Tensor
    made_of: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.physics = PhysicsInputs(inputs)
        kept = [index for index, name in enumerate(inputs.names) if name not in self.physics.replaces]
        self.spreads = any(inputs.names[index] in inputs.spread for index in kept)
        spread = [inputs.spread.get(inputs.names[index], (0.0, 1.0)) for index in kept]
        scaled = [
            1.0 if inputs.std[index] != 1.0 or inputs.names[index] in inputs.spread
            else FACTORS.get(inputs.names[index], 1.0) for index in kept
        ]  # fmt: skip
        # A copy: a network moves to devices, and what others derive with must not.
        self.derived = nn.ModuleList(copy.deepcopy(inputs.derived))
        about = [*self.physics.about, *(name for part in inputs.derived for name in part.about)]
        ingredients = [*self.physics.ingredients, *(names for part in inputs.derived for names in part.ingredients)]
        self.token = (*kept, *(inputs.index(name) for name in about))
        self.size = len(self.token)
        made_of = torch.zeros(len(inputs.names), self.size)
        made_of[kept, range(len(kept))] = 1.0
        for column, names in enumerate(ingredients, start=len(kept)):
            made_of[[inputs.index(name) for name in names], column] = 1.0
        self.register_buffer("kept", constant(kept, torch.int64), persistent=False)
        self.register_buffer("factor", constant(scaled), persistent=False)
        for name, position in (("centre", 0), ("width", 1)):
            self.register_buffer(name, constant([each[position] for each in spread]), persistent=False)
        self.register_buffer("made_of", made_of, persistent=False)

    def forward(self, standardised: Tensor) -> tuple[Tensor, Tensor]:
        """Return the columns ``(batch, size)``, 0 where an ingredient is missing, and the missing bits of the features.

        Both are float32 and finite whatever comes in.
        """
        missing = torch.isnan(standardised)
        known = torch.where(missing, 0.0, standardised)
        bits = missing.to(standardised.dtype)
        values = known.index_select(1, self.kept)
        if self.spreads:
            values = (values - self.centre) / self.width
        values = (values * self.factor).clamp(-LARGEST, LARGEST)
        columns = torch.cat([values, self.physics(known), *(part(known) for part in self.derived)], dim=1)
        return torch.where(bits @ self.made_of > 0.5, 0.0, columns), bits
