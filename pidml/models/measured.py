"""Features in their units, and the momentum made of them, inside a network's graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pidml.models.base import Inputs, constant

#: Smallest values taken, so that logarithms and ratios stay finite: GeV/c, GeV/c, arbitrary units, v/c.
_LEAST = {"fP": 0.02, "fPt": 0.02, "fTPCSignal": 1.0, "fBeta": 0.05}
#: Largest magnitude of a value that is let through, so that squares stay finite.
_LARGEST = 1e6
AXES = ("fPx", "fPy", "fPz")


class Measured(nn.Module):
    """Undoes the standardisation and finds momenta; knows which features they are made of.

    Attributes:
        p_of, pt_of: features that momentum and transverse momentum are made of; empty if they cannot be had.
        has_axes: whether all three components of the momentum are features.
    """

    mean: Tensor
    std: Tensor
    least: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.names = inputs.names
        least = [_LEAST.get(name, -_LARGEST) for name in inputs.names]
        for name, values in (("mean", inputs.mean), ("std", inputs.std), ("least", least)):
            self.register_buffer(name, constant(values), persistent=False)
        self.has_axes = all(name in inputs for name in AXES)
        self.p_of = ("fP",) if "fP" in inputs else AXES if self.has_axes else ()
        self.pt_of = ("fPt",) if "fPt" in inputs else AXES[:2] if self.has_axes else ()

    def forward(self, known: Tensor) -> dict[str, Tensor]:
        """Return feature → raw value ``(batch, 1)`` of standardised features in which 0 stands for missing."""
        raw = torch.maximum(known * self.std + self.mean, self.least).clamp(max=_LARGEST)
        return dict(zip(self.names, raw.split(1, dim=1), strict=True))  # type: ignore[no-untyped-call]

    def p(self, value: dict[str, Tensor]) -> Tensor:
        """Return the momentum, GeV/c, ``(batch, 1)``, of what :meth:`forward` returned; nothing if it has none."""
        return self._length(value, self.p_of)

    def pt(self, value: dict[str, Tensor]) -> Tensor:
        """Return the transverse momentum, GeV/c, ``(batch, 1)``; nothing if it cannot be had."""
        return self._length(value, self.pt_of)

    def _length(self, value: dict[str, Tensor], made_of: tuple[str, ...]) -> Tensor:
        """Return a momentum: the one measured, or the length of the components named."""
        if len(made_of) < 2:
            return value[made_of[0]] if made_of else torch.empty(0)
        squares = [value[name] * value[name] for name in made_of]
        # Added one by one: runtimes sum along an axis in orders of their own, and β − β_expected is steep.
        return torch.sqrt(sum(squares[1:], start=squares[0])).clamp(min=_LEAST["fP"])
