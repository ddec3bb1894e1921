"""Quantities of physical meaning, computed from the features inside a network's graph.

A network could learn these from the features, but slowly: whether a track is a kaon depends on how far its TPC signal
is from the Bethe–Bloch curve, and its β from that of a kaon of its momentum. Both expectations are given here. All
quantities are of order 1 and free of trained parameters. Values are handled together where possible: an exported graph
takes about half a microsecond per operation and track.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pidml.models.base import Inputs, constant
from pidml.models.measured import AXES, Measured
from pidml.species import by_name

#: Hypotheses whose expected signals are compared with the measured ones; masses in GeV/c².
MASSES = tuple(by_name(name).mass for name in ("electron", "pion", "kaon", "proton"))
#: ALEPH form of the Bethe–Bloch curve (Blum, Riegler, Rolandi, 2008), parameters of the shape used for the ALICE TPC.
_BETHE_BLOCH = (0.0320981, 19.9768, 2.52666e-16, 2.72123, 6.08092)
MIP = 50.0
#: Smallest magnitude in a logarithm.
_SMALLEST = 1e-4
#: Steepness with which distances from an expectation are mapped to ±1: TPC signal; β on a fine and on a coarse scale.
_SIGNAL_SCALE, _FINE_SCALE, _COARSE_SCALE = 4.0, 50.0, 5.0


def bethe_bloch(inverse: Tensor, squared: Tensor) -> Tensor:
    """Return the expected energy loss relative to a minimum-ionising particle's.

    Args:
        inverse: 1/(βγ).
        squared: 1/(βγ)² + 1, which is 1/β².
    """
    p1, p2, p3, p4, p5 = _BETHE_BLOCH
    power = squared ** (-0.5 * p4)
    # Far below the momenta of tracks the form turns negative.
    loss = (p2 - power - torch.log(p3 + inverse**p5)).clamp(min=_SMALLEST)
    return loss * p1 / power


class PhysicsInputs(nn.Module):
    """Computes what the features at hand allow; ``size`` says how many columns come out (0 is possible).

    Attributes:
        about: per column, the feature whose token it belongs to.
        ingredients: per column, the features that it is made of; it means nothing if one is missing.
        replaces: features that need not enter by themselves any more.
    """

    masses: Tensor

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        self.measured = Measured(inputs)
        self.register_buffer("masses", constant(MASSES), persistent=False)
        axes, self.p_of, self.pt_of = self.measured.has_axes, self.measured.p_of, self.measured.pt_of
        self.replaces = (*AXES, "fP", "fPt") if axes else ()
        self.columns = self._columns(axes)
        self.about = tuple(about for about, _ in self.columns)
        self.ingredients = tuple(made_of for _, made_of in self.columns)
        self.size = len(self.columns)

    def _columns(self, axes: bool) -> list[tuple[str, tuple[str, ...]]]:
        """Say which columns :meth:`forward` returns, as (feature it is about, features it is made of)."""
        has, signal, beta = self.inputs, ("fTPCSignal",), ("fBeta",)
        logarithms = [(made_of[0], made_of) for made_of in (self.p_of, self.pt_of) if made_of]
        logarithms += [(name, (name,)) for name in ("fTPCSignal", "fDcaXY", "fDcaZ") if name in has]
        squashed: list[tuple[str, tuple[str, ...]]] = []
        if self.p_of:
            squashed += len(MASSES) * [("fTPCSignal", (*signal, *self.p_of))] if "fTPCSignal" in has else []
            squashed += 2 * len(MASSES) * [("fBeta", (*beta, *self.p_of))] if "fBeta" in has else []
        squashed += [("fPz", AXES)] if axes else []
        plain = [("fPx", AXES[:2]), ("fPy", AXES[:2])] if axes else []
        return logarithms + squashed + plain + ([(self.p_of[0], self.p_of)] if self.p_of else [])

    def forward(self, known: Tensor) -> Tensor:
        """Return the quantities, ``(batch, size)``, of standardised features in which 0 stands for missing."""
        if self.size == 0:
            return known[:, :0]
        value = self.measured(known)
        p, pt = self.measured.p(value), self.measured.pt(value)
        tpc = [value["fTPCSignal"] / MIP] if "fTPCSignal" in value else []
        distances = [value[name] * 20.0 for name in ("fDcaXY", "fDcaZ") if name in value]
        positive = [*([p] if self.p_of else []), *([pt] if self.pt_of else []), *tpc, *distances]
        parts = [self._logarithms(positive)] if positive else []
        squashed = self._expectations(value, p) if self.p_of else []
        squashed += [value["fPz"] / pt] if self.replaces else []
        if squashed:
            together = torch.cat(squashed, dim=1)
            parts.append(together / (1 + together.abs()))
        if self.replaces:
            parts += [value["fPx"] / pt, value["fPy"] / pt]
        if self.p_of:
            parts.append(0.3 / p)
        return torch.cat(parts, dim=1)

    def _logarithms(self, positive: list[Tensor]) -> Tensor:
        return torch.log(torch.cat(positive, dim=1).abs().clamp(min=_SMALLEST))

    def _expectations(self, value: dict[str, Tensor], p: Tensor) -> list[Tensor]:
        """Return distances of TPC signal and β from the expectation of each hypothesis."""
        inverse = self.masses / p
        squared = 1 + inverse * inverse
        result = []
        if "fTPCSignal" in value:
            # The logarithm of the ratio, not the difference of logarithms: that would lose digits.
            ratio = value["fTPCSignal"] / MIP / bethe_bloch(inverse, squared)
            result.append(_SIGNAL_SCALE * torch.log(ratio))
        if "fBeta" in value:
            # 1/β − √(m²/p² + 1), written without the difference of two values near 1: the distance is steep, and the
            # square roots of two runtimes differ in their last digit.
            beta = value["fBeta"]
            slowness = 1 / beta
            excess = (1 - beta) * (1 + beta) * slowness * slowness  # 1/β² − 1
            distance = (excess - inverse * inverse) / (slowness + torch.sqrt(squared))
            result += [_FINE_SCALE * distance, _COARSE_SCALE * distance]
        return result
