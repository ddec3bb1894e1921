"""The expected TPC signal and its resolution, learned per species hypothesis, and nσ counted from them.

The signal is taken relative to the Bethe–Bloch curve of the hypothesis, so that a small network has to learn only the
departure from it (with angle, charge, occupancy), and momenta without tracks get the curve. Departure and resolution
are bounded smoothly: no track, whatever its features, makes a column steep.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pidml.errors import MissingColumn
from pidml.models.base import Derived, Inputs, constant
from pidml.models.measured import AXES, Measured
from pidml.models.physics import MIP, bethe_bloch
from pidml.species import by_name

SIGNAL = "fTPCSignal"
#: Features that the response may depend on beside momentum and angle, where they are among the features.
EXTRA = ("fSign", "fTPCNClsShared", "fMultTPC", "fMultTracklets")
#: Largest departure of ln(signal) from centre, of ln(resolution) from its start; smallest relative resolution.
_LARGEST_SHIFT, _LARGEST_STRETCH, _LEAST_RESOLUTION = 0.5, 1.0, 0.02
#: nσ at which a column reaches half of its range: as steep as the distances from the Bethe–Bloch curve.
_HALF = 3.0
#: Largest magnitude of an input: what lies beyond is an outlier.
_LARGEST_INPUT = 4.0
KIND = "tpc_nsigma"


def ingredients(inputs: Inputs) -> tuple[str, ...]:
    """Return the features that a response is made of; a track that lacks one of them has no nσ.

    Raises:
        MissingColumn: the features do not hold the TPC signal, or no momentum can be had of them.
    """
    measured = Measured(inputs)
    if SIGNAL not in inputs or not measured.p_of:
        raise MissingColumn(
            f"tpc_nsigma needs {SIGNAL} and fP (or {', '.join(AXES)}) among the features; there are: "
            f"{', '.join(inputs.names)}",
            "add them to preparation.features, or leave tpc_nsigma out of dataset.derive",
        )
    angle = ("fPz", *measured.pt_of) if "fPz" in inputs and measured.pt_of else ()
    extra = (name for name in EXTRA if name in inputs)
    return tuple(dict.fromkeys((SIGNAL, *measured.p_of, *angle, *extra)))


class TpcResponse(Derived):
    """Expected TPC signal, resolution and nσ under each hypothesis.

    Args:
        inputs: features and their scaling.
        species: hypotheses, names out of :data:`pidml.species.ALL` (one charge each).
        hidden: widths of the hidden layers.

    Raises:
        MissingColumn: the features do not hold the TPC signal, or no momentum can be had of them.
    """

    masses: Tensor
    chosen: Tensor
    log_centre: Tensor
    log_width: Tensor
    input_mean: Tensor
    input_std: Tensor
    pull_mean: Tensor
    pull_width: Tensor

    def __init__(self, inputs: Inputs, species: Sequence[str], hidden: Sequence[int]) -> None:
        super().__init__()
        used = ingredients(inputs)
        self.measured = Measured(inputs)
        self.species, self.hidden_widths = tuple(species), tuple(hidden)
        self.has_angle = "fPz" in inputs and bool(self.measured.pt_of)
        self.extra = tuple(name for name in EXTRA if name in inputs)
        self.about = (SIGNAL,) * len(self.species)
        self.ingredients = (used,) * len(self.species)
        size, number = 1 + 2 * self.has_angle + len(self.extra), len(self.species)
        chosen = [inputs.index(name) for name in self.extra]
        self.register_buffer("masses", constant([by_name(name).mass for name in self.species]), persistent=False)
        self.register_buffer("chosen", constant(chosen, torch.int64), persistent=False)
        zeros, ones = [0.0] * number, [1.0] * number
        self._settle(log_centre=zeros, log_width=zeros, pull_mean=zeros, pull_width=ones)
        self._settle(input_mean=[0.0] * size, input_std=[1.0] * size)
        widths = (size, *self.hidden_widths)
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(widths[-1], 2 * number)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def _settle(self, **values: Any) -> None:
        """Register constants that are learned once, before the training or after it."""
        for name, value in values.items():
            self.register_buffer(name, constant(value), persistent=False)

    def network_inputs(self, known: Tensor) -> Tensor:
        """Return what the response may depend on, ``(batch, inputs)``, not yet of order 1: ln p, angle, extras."""
        value = self.measured(known)
        parts = [torch.log(self.measured.p(value))]
        if self.has_angle:
            slope = value["fPz"] / self.measured.pt(value)
            slope = slope / (1 + slope.abs())
            parts += [slope, slope * slope]  # the chamber's two halves are alike: most of it is even
        if self.extra:
            parts.append(known.index_select(1, self.chosen))
        return torch.cat(parts, dim=1)

    def ratios(self, known: Tensor) -> Tensor:
        """Return signal ÷ Bethe–Bloch under each hypothesis, ``(batch, species)``."""
        value = self.measured(known)
        signal: Tensor = value[SIGNAL]
        return signal / self._bethe_bloch(self.measured.p(value))

    def _bethe_bloch(self, momentum: Tensor) -> Tensor:
        inverse = self.masses / momentum
        return MIP * bethe_bloch(inverse, 1 + inverse * inverse)

    def learned(self, network_inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return ln(expected ÷ Bethe–Bloch) and ln(relative resolution), each ``(batch, species)``."""
        x = ((network_inputs - self.input_mean) / self.input_std).clamp(-_LARGEST_INPUT, _LARGEST_INPUT)
        shift, stretch = self.output(self.hidden(x)).chunk(2, dim=1)
        shift = _LARGEST_SHIFT * torch.tanh(shift / _LARGEST_SHIFT)
        stretch = _LARGEST_STRETCH * torch.tanh(stretch / _LARGEST_STRETCH)
        return self.log_centre + shift, (self.log_width + stretch).clamp(min=math.log(_LEAST_RESOLUTION))

    def nsigma(self, known: Tensor) -> Tensor:
        """Return (signal − expected) ÷ resolution, ``(batch, species)``, of standardised features, 0 for missing."""
        return self.pulls(self.network_inputs(known), self.ratios(known))

    def pulls(self, network_inputs: Tensor, ratios: Tensor) -> Tensor:
        """Return nσ, ``(batch, species)``, of what the methods of these names return; one ratio may stand for all."""
        log_expected, log_width = self.learned(network_inputs)
        raw = (ratios * torch.exp(-log_expected) - 1) * torch.exp(-log_width)
        return (raw - self.pull_mean) / self.pull_width

    def forward(self, known: Tensor) -> Tensor:
        """Return nσ squashed to (−1, 1), ``(batch, species)``."""
        pull = self.nsigma(known) / _HALF
        return pull / (1 + pull.abs())

    def expected(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return expected signal and its resolution, both in the unit of the signal, ``(batch, species)``.

        ``nsigma`` is the signal's distance from the former in units of the latter.
        """
        momentum = self.measured.p(self.measured(known))
        return self._in_units(self.network_inputs(known), self._bethe_bloch(momentum))

    def curves(self, momentum: Tensor) -> tuple[Tensor, Tensor]:
        """Return expected signal and resolution, ``(momenta, species)``, at the mean of all inputs but the momentum.

        Args:
            momentum: GeV/c, ``(momenta,)``.
        """
        network_inputs = self.input_mean.repeat(len(momentum), 1)
        network_inputs[:, 0] = momentum.log()
        return self._in_units(network_inputs, self._bethe_bloch(momentum[:, None]))

    def _in_units(self, network_inputs: Tensor, curve: Tensor) -> tuple[Tensor, Tensor]:
        log_expected, log_width = self.learned(network_inputs)
        curve, width = curve * torch.exp(log_expected), torch.exp(log_width)
        return curve * (1 + width * self.pull_mean), curve * width * self.pull_width

    def freeze(self) -> TpcResponse:
        """Make the weights constants: they are no parameters of a network that contains them."""
        for module in self.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach().clone(), persistent=False)
        return self

    def state(self) -> dict[str, Any]:
        """See :meth:`Derived.state`."""
        tensors = dict(self.named_buffers()) | dict(self.named_parameters())
        own = {name: value.detach().cpu() for name, value in tensors.items() if name in self._learned_names(tensors)}
        return {"kind": KIND, "species": list(self.species), "hidden": list(self.hidden_widths), "values": own}

    @staticmethod
    def _learned_names(names: Any) -> list[str]:
        given = ("measured.", "masses", "chosen")
        return [name for name in names if not name.startswith(given)]

    @classmethod
    def of(cls, state: dict[str, Any], inputs: Inputs) -> TpcResponse:
        """Return the response that :meth:`state` describes, frozen."""
        result = cls(inputs, state["species"], state["hidden"]).freeze()
        own = dict(result.named_buffers())
        with torch.no_grad():
            for name in cls._learned_names(own):
                own[name].copy_(state["values"][name])
        return result
