"""Quantities of physical meaning, computed from standardised features inside a network's graph.

A network could learn these from the features, but slowly: whether a track is a kaon depends on how far its TPC signal
is from the Bethe–Bloch curve, and its β from that of a kaon of its momentum. Both expectations are given here. All
quantities are of order 1, bounded, free of trained parameters, and NaN where an ingredient is missing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pidml.models.base import Inputs, constant
from pidml.species import by_name

#: Hypotheses whose expected signals are compared with the measured ones; masses in GeV/c².
MASSES = tuple(by_name(name).mass for name in ("electron", "pion", "kaon", "proton"))
#: ALEPH form of the Bethe–Bloch curve (Blum, Riegler, Rolandi, 2008), parameters of the shape used for the ALICE TPC.
_BETHE_BLOCH = (0.0320981, 19.9768, 2.52666e-16, 2.72123, 6.08092)
_MIP = 50.0
#: Smallest values taken, so that logarithms and ratios stay finite: GeV/c, arbitrary units, v/c, cm.
_LEAST_MOMENTUM, _LEAST_SIGNAL, _LEAST_BETA, _LEAST_DISTANCE = 0.02, 1.0, 0.05, 1e-4
#: Largest magnitude of a raw value that is let through, so that squares stay finite.
_LARGEST = 1e6
_MOMENTUM_AXES = ("fPx", "fPy", "fPz")


def log_bethe_bloch(beta_gamma: Tensor) -> Tensor:
    """Return the logarithm of the expected energy loss relative to a minimum-ionising particle's."""
    p1, p2, p3, p4, p5 = _BETHE_BLOCH
    power = (1 + beta_gamma**-2) ** (-0.5 * p4)
    return torch.log((p2 - power - torch.log(p3 + beta_gamma**-p5)) * p1 / power)


def squash(x: Tensor) -> Tensor:
    """Return ``x / (1 + |x|)``: linear near 0, bounded by ±1."""
    return x / (1 + x.abs())


class PhysicsInputs(nn.Module):
    """Computes what the features at hand allow; ``size`` says how many columns come out (0 is possible).

    ``source[k]`` is the feature that column ``k`` is about.
    """

    mean: Tensor
    std: Tensor
    masses: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        self.register_buffer("mean", constant(inputs.mean), persistent=False)
        self.register_buffer("std", constant(inputs.std), persistent=False)
        self.register_buffer("masses", constant(MASSES), persistent=False)
        self.has_axes = all(name in inputs for name in _MOMENTUM_AXES)
        has_p = "fP" in inputs or self.has_axes
        has_pt = "fPt" in inputs or ("fPx" in inputs and "fPy" in inputs)
        parts: list[tuple[Callable[[Tensor], Tensor], tuple[str, ...]]] = []
        if has_p:
            parts.append((self._momentum, 2 * ("fP" if "fP" in inputs else "fPx",)))
        if has_pt:
            parts.append((self._transverse, ("fPt" if "fPt" in inputs else "fPx",)))
        if self.has_axes:
            parts.append((self._direction, _MOMENTUM_AXES))
        if "fTPCSignal" in inputs:
            parts.append((self._signal, ("fTPCSignal",)))
        if "fTPCSignal" in inputs and has_p:
            parts.append((self._energy_loss, len(MASSES) * ("fTPCSignal",)))
        if "fBeta" in inputs and has_p:
            parts.append((self._velocity, 2 * len(MASSES) * ("fBeta",)))
        parts += [(self._distance(name), (name,)) for name in ("fDcaXY", "fDcaZ") if name in inputs]
        self._parts = tuple(part for part, _ in parts)
        self.source = tuple(name for _, names in parts for name in names)
        self.size = len(self.source)

    def forward(self, standardised: Tensor) -> Tensor:
        """Return the quantities, ``(batch, size)``, NaN where an ingredient is missing."""
        if not self._parts:
            return standardised[:, :0]
        raw = (standardised * self.std + self.mean).clamp(-_LARGEST, _LARGEST)
        return torch.cat([part(raw) for part in self._parts], dim=1)

    def _column(self, raw: Tensor, name: str) -> Tensor:
        index = self.inputs.index(name)
        return raw[:, index : index + 1]

    def _p(self, raw: Tensor) -> Tensor:
        if "fP" in self.inputs:
            return self._column(raw, "fP").clamp(min=_LEAST_MOMENTUM)
        axes = [self._column(raw, name) for name in _MOMENTUM_AXES]
        return torch.sqrt(axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2).clamp(min=_LEAST_MOMENTUM)

    def _pt(self, raw: Tensor) -> Tensor:
        if "fPt" in self.inputs:
            return self._column(raw, "fPt").clamp(min=_LEAST_MOMENTUM)
        px, py = self._column(raw, "fPx"), self._column(raw, "fPy")
        return torch.sqrt(px * px + py * py).clamp(min=_LEAST_MOMENTUM)

    def _momentum(self, raw: Tensor) -> Tensor:
        p = self._p(raw)
        return torch.cat([torch.log(p), 0.3 / p], dim=1)

    def _transverse(self, raw: Tensor) -> Tensor:
        return torch.log(self._pt(raw))

    def _direction(self, raw: Tensor) -> Tensor:
        pt = self._pt(raw)
        return torch.cat(
            [self._column(raw, "fPx") / pt, self._column(raw, "fPy") / pt, squash(self._column(raw, "fPz") / pt)], dim=1
        )

    def _signal(self, raw: Tensor) -> Tensor:
        return torch.log(self._column(raw, "fTPCSignal").clamp(min=_LEAST_SIGNAL) / _MIP)

    def _energy_loss(self, raw: Tensor) -> Tensor:
        """Distance of the TPC signal from each hypothesis, in units of about one standard deviation over four."""
        expected = log_bethe_bloch(self._p(raw) / self.masses)
        return squash(4.0 * (self._signal(raw) - expected))

    def _velocity(self, raw: Tensor) -> Tensor:
        """1/β − √(1 + m²/p²) of each hypothesis, on a fine and on a coarse scale."""
        inverse = 1 / self._column(raw, "fBeta").clamp(min=_LEAST_BETA)
        distance = inverse - torch.sqrt(1 + (self.masses / self._p(raw)) ** 2)
        return torch.cat([squash(50.0 * distance), squash(5.0 * distance)], dim=1)

    def _distance(self, name: str) -> Callable[[Tensor], Tensor]:
        def logarithm(raw: Tensor) -> Tensor:
            return torch.log(self._column(raw, name).abs().clamp(min=_LEAST_DISTANCE)) * 0.3 + 1.5

        return logarithm
