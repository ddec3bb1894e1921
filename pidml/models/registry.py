"""From the name of an architecture to a network."""

from __future__ import annotations

from collections.abc import Callable

from pidml.models.attention import Attention
from pidml.models.base import Inputs, Network
from pidml.models.ensemble import Ensemble
from pidml.models.imputing_mlp import ImputingMlp
from pidml.models.masked_mlp import MaskedMlp
from pidml.models.trees import Trees
from pidml.spec.model_sections import Model

_BUILDERS: dict[str, Callable[[Model, Inputs, int], Network]] = {
    "masked-mlp": MaskedMlp,
    "attention": Attention,
    "ensemble": Ensemble,
    "mlp": ImputingMlp,
    "boosted-trees": Trees,
    "random-forest": Trees,
}


def build(model: Model, inputs: Inputs, outputs: int) -> Network:
    """Return an untrained network.

    Args:
        model: architecture and its settings.
        inputs: the features that enter it and how they were standardised.
        outputs: number of logits.
    """
    return _BUILDERS[model.architecture](model, inputs, outputs)
