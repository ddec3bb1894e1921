"""Sums of decision trees behind the interface of networks: boosted trees and random forests.

Trees compare standardised features as they are, and two quantities made of them by operations that every runtime
rounds alike (+, −, ×, ÷): a logarithm that differs in its last digit would send a track to another leaf.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pidml.data.taught import Taught
from pidml.models.base import Inputs, Network
from pidml.models.tree_arrays import Forest
from pidml.models.tree_sum import TreeSum
from pidml.spec.model_sections import Model

#: How the sum of the leaves becomes a logit: it is one, or it is a probability p and the logit is ln p or ln p/(1 − p).
Link = Literal["identity", "log", "logit"]
_LINKS: tuple[Link, ...] = ("identity", "log", "logit")
#: Probabilities are kept this far from 0 and 1.
_EPSILON = 1e-5
_ARRAYS = tuple(each.name for each in fields(Forest))
#: Quantities added to the features, and the features that they are made of.
_ADDED = {"pt2": ("fPx", "fPy"), "m2": ("fP", "fBeta")}


class Trees(Network):
    """Trees, the link, and a factor and an offset per output: ``factor · link(Σ leaves) + offset``.

    Without trees until :meth:`plant` or :meth:`load_state_dict` is called.
    """

    evaluation_batch = 16_384
    factor: Tensor
    offset: Tensor

    def __init__(self, model: Model, inputs: Inputs, outputs: int) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs
        for name in (*_ARRAYS, "link"):
            self.register_buffer(name, torch.empty(0))
        self.register_buffer("factor", torch.ones(outputs))
        self.register_buffer("offset", torch.zeros(outputs))

    def plant(self, forest: Forest, link: Link = "identity") -> None:
        """Take over trees."""
        for name in _ARRAYS:
            setattr(self, name, torch.from_numpy(np.array(getattr(forest, name))))
        self.link = torch.tensor(_LINKS.index(link))
        self._arrange()

    @torch.no_grad()
    def learn_inputs(self, standardised: Tensor) -> None:
        """Take the mean of each column, for :meth:`settle`."""
        self._mean = torch.nanmean(columns(standardised, self.inputs).double(), dim=0).numpy()

    def settle(self, taught: Taught) -> None:
        """Send missing values where the training's mean goes, in columns that hardly any training track lacked.

        Where nothing was missing, a library's choice of the way says nothing.
        """
        hardly = set(taught.hardly_lacking)
        made_of = [*((name,) for name in self.inputs.names), *(_ADDED[name] for name in _added(self.inputs))]
        concerned = np.array([hardly.issuperset(each) for each in made_of])
        forest = self.forest()
        to_first = self._mean[forest.feature] <= forest.threshold
        chosen = np.where(concerned[forest.feature] & ~forest.is_leaf, to_first, forest.missing_first)
        self.plant(replace(forest, missing_first=chosen), self._link)

    def forest(self) -> Forest:
        """Return the trees."""
        return Forest(**{name: getattr(self, name).numpy() for name in _ARRAYS})

    def only(self, output: int) -> Trees:
        """Return what gives this output alone."""
        result = Trees(self.model, self.inputs, 1)
        result.plant(self.forest().of_outputs([output]), self._link)
        result.factor, result.offset = self.factor[[output]].clone(), self.offset[[output]].clone()
        return result.train(self.training)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take over arrays of any size."""
        for name in (*_ARRAYS, "link"):
            setattr(self, name, state_dict[prefix + name].clone())
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._arrange()

    def _arrange(self) -> None:
        """Prepare what evaluation needs."""
        self._link = _LINKS[int(self.link)]
        self._sum = TreeSum(self.forest(), column_count(self.inputs), len(self.factor))

    @property
    def parameter_count(self) -> int:
        """Number of thresholds and leaf values."""
        forest = self.forest()
        return int(np.count_nonzero(~forest.is_leaf)) + forest.values.size

    def encode(self, standardised: Tensor) -> Tensor:
        """Return the columns that trees compare; NaN where an ingredient is missing."""
        return columns(standardised, self.inputs)

    def body(self, encoded: Tensor) -> Tensor:
        """Return logits ``(batch, outputs)``."""
        return self.logits(self._sum(encoded)) * self.factor + self.offset

    def group_trees(self, nodes: int) -> None:
        """Have the graph that is exported evaluate many tracks faster; see :meth:`TreeSum.group`."""
        self._sum.group(nodes)

    def sums(self, encoded: Tensor) -> Tensor:
        """Return the sum of the leaves that each track reaches, ``(batch, outputs)``."""
        return self._sum.evaluate(encoded)

    def logits(self, sums: Tensor) -> Tensor:
        """Return the sums as logits, before factor and offset."""
        if self._link == "identity":
            return sums
        sums = sums.clamp(_EPSILON, 1 - _EPSILON)
        return sums.log() if self._link == "log" else sums.log() - (1 - sums).log()

    @torch.no_grad()
    def rescale_output(self, factor: Tensor, offset: Tensor) -> None:
        """See :meth:`Network.rescale_output`."""
        self.factor.mul_(factor)
        self.offset.mul_(factor).add_(offset)


def _added(inputs: Inputs) -> list[str]:
    return [name for name, needed in _ADDED.items() if all(each in inputs for each in needed)]


def column_count(inputs: Inputs) -> int:
    """Return the number of columns that trees compare."""
    return len(inputs.names) + len(_added(inputs))


def columns(standardised: Tensor, inputs: Inputs) -> Tensor:
    """Return the features, then pT² and the squared mass p²/β² − p² that time of flight gives, (batch, columns)."""

    def raw(name: str) -> Tensor:
        index = inputs.index(name)
        value, std, mean = standardised[:, index : index + 1], inputs.std[index], inputs.mean[index]
        return value if (mean, std) == (0.0, 1.0) else value * std + mean

    result, added = [standardised], _added(inputs)
    if "pt2" in added:
        px, py = raw("fPx"), raw("fPy")
        result.append(px * px + py * py)
    if "m2" in added:
        p, beta = raw("fP"), raw("fBeta")
        p2 = p * p
        # A quotient, because runtimes approximate reciprocals; a tiny number keeps it finite where β is 0.
        result.append(p2 / (beta * beta + 1e-6) - p2)
    return torch.cat(result, dim=1)
