"""The small interface that all networks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pidml.data.prepared import Scaling
from pidml.data.taught import Taught

#: Feature that enters raw → mean and standard deviation with which networks bring it to order 1.
Spread = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Inputs:
    """What enters a network: feature names in order, and the scaling that standardised them.

    Attributes:
        names: feature names, the order of the matrix columns.
        mean: mean subtracted from each feature, in its unit; 0 for features that enter raw.
        std: standard deviation that each feature was divided by; 1 for features that enter raw.
        derived: further columns, computed from the features inside the graph.
        spread: raw features far from order 1, see :mod:`pidml.models.spread`.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    derived: tuple[Derived, ...] = ()
    spread: Spread = field(default_factory=dict)

    @classmethod
    def of(cls, scaling: Scaling, derived: Sequence[Derived] = (), spread: Spread | None = None) -> Inputs:
        """Return the inputs that go with a prepared dataset's scaling."""
        mean, std = tuple(map(float, scaling.mean)), tuple(map(float, scaling.std))
        return cls(scaling.names, mean, std, tuple(derived), spread or {})

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def index(self, name: str) -> int:
        """Return the column of the feature ``name``; ValueError if it is not there."""
        return self.names.index(name)


class Derived(nn.Module):
    """Columns that a step before the training has learned to compute; what was learned is constant from then on.

    Attributes:
        about: per column, the feature whose token it belongs to.
        ingredients: per column, the features that it is made of; it means nothing if one is missing.
    """

    about: tuple[str, ...]
    ingredients: tuple[tuple[str, ...], ...]

    def forward(self, known: Tensor) -> Tensor:
        """Return the columns, ``(batch, columns)``, of order 1, of standardised features with 0 for missing."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return what makes it: plain values and tensors. Equal states give equal columns."""
        raise NotImplementedError


class Network(nn.Module):
    """Base of all networks.

    ``forward(standardised)`` takes float32 of shape ``(batch, features)``, NaN where missing in any mixture of
    patterns, and returns logits of shape ``(batch, outputs)``, finite for every row. It is the composition of two
    parts: ``encode`` holds no trained parameter, so that training does it once per track and not once per epoch;
    ``body`` is the rest. ``body`` in turn is ``latent``, the last hidden layer, and the last layer ``output``, a
    :class:`torch.nn.Linear`; a network without one last hidden layer defines ``body`` itself.
    """

    #: Rows that are evaluated at once where memory for intermediate values is of concern.
    evaluation_batch = 65_536
    output: nn.Linear
    #: Constants that bring raw features to order 1; see :class:`Inputs`.
    spread: Spread = MappingProxyType({})

    def learn_inputs(self, standardised: Tensor) -> None:
        """Take what the inputs' treatment needs from training tracks, ``(tracks, features)``, before training starts.

        Most networks need nothing.
        """

    def settle(self, taught: Taught) -> None:
        """After training: leave nothing untrained that could answer. Most networks have no such parts."""

    def encode(self, standardised: Tensor) -> Tensor:
        """Return the network's own view of the features, float32 ``(batch, encoded)``."""
        raise NotImplementedError

    def latent(self, encoded: Tensor) -> Tensor:
        """Return the last hidden layer, ``(batch, output.in_features)``, of encoded features."""
        raise NotImplementedError

    def body(self, encoded: Tensor) -> Tensor:
        """Return logits ``(batch, outputs)`` of encoded features."""
        logits: Tensor = self.output(self.latent(encoded))
        return logits

    def forward(self, standardised: Tensor) -> Tensor:
        """Return logits ``(batch, outputs)`` of standardised features ``(batch, features)``."""
        return self.body(self.encode(standardised))

    @torch.no_grad()
    def rescale_output(self, factor: Tensor, offset: Tensor) -> None:
        """Make the network return ``factor · logit + offset`` from now on (both of shape ``(outputs,)``)."""
        self.output.weight.mul_(factor[:, None])
        self.output.bias.mul_(factor).add_(offset)

    def only(self, output: int) -> Network | None:  # noqa: ARG002 - for those that can
        """Return a network that gives one of the outputs alone at less cost, or None where there is none."""
        return None

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Call :meth:`forward`; declared because that of nn.Module returns anything."""
        result: Tensor = super().__call__(*args, **kwargs)
        return result


def constant(values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return ``values`` as a tensor, for registration as a non-persistent buffer."""
    return torch.tensor(values, dtype=dtype)
