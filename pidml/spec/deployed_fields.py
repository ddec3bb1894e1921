"""The fields of the form with which tasks are queued, as deployed: the flat ``Configuration`` of a server task.

This is the only place that knows the 14 keys, their types, defaults and ranges. The embedded server makes its form from
it, and the translation of a server task into a job specification checks against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FieldType = Literal["bool", "uint", "float64"]
"""The types an administrator can give a field: JSON ``true``/``false``, a whole number ≥ 0, any number."""


@dataclass(frozen=True)
class DeployedField:
    """One field of the form: a key of the flat ``Configuration``.

    Attributes:
        key: name in the JSON object.
        full_name: label in the form.
        type: how the value is written.
        default: value the form starts with.
        minimum: smallest value allowed (``None`` for ``bool``).
        maximum: largest value allowed (``None`` for ``bool``).
        step: distance between neighbouring values in the form; other values within the range are allowed all the same.
        description: what the value does, in one line, with its unit.
    """

    key: str
    full_name: str
    type: FieldType
    default: bool | int | float
    minimum: int | float | None
    maximum: int | float | None
    step: int | float | None
    description: str


def _count(key: str, full_name: str, default: int, maximum: int, description: str) -> DeployedField:
    return DeployedField(key, full_name, "uint", default, 1, maximum, 1, description)


DEPLOYED_FIELDS: tuple[DeployedField, ...] = (
    DeployedField(
        "undersample",
        "Undersample missing-detector combinations",
        "bool",
        False,
        None,
        None,
        None,
        "Equalise the number of tracks of every combination of missing detectors.",
    ),
    _count("bs", "Batch size", 512, 1024, "Tracks per optimiser step."),
    _count("max_epochs", "Maximum number of epochs", 40, 1000, "Training ends after this many passes at the latest."),
    # Deployed forms go to 1, with which a network would see nothing; such tasks are refused.
    DeployedField("dropout", "Dropout", "float64", 0.1, 0, 0.99, 0.01, "Fraction of activations dropped in training."),
    DeployedField(
        "gamma", "Learning-rate decay", "float64", 0.9, 0, 1, 0.001, "Factor on the learning rate after every epoch."
    ),
    _count("patience", "Patience", 5, 100, "Epochs without improvement after which training stops."),
    DeployedField(
        "patience_threshold",
        "Patience threshold",
        "float64",
        0.001,
        0,
        1,
        0.0001,
        "Relative improvement of the validation loss that counts as one.",
    ),
    _count("embed_hidden", "Embedding hidden size", 128, 4096, "Units in the hidden layer that embeds each feature."),
    _count("d_model", "Model size", 32, 4096, "Size of an embedded feature; must divide by the number of heads."),
    _count("ff_hidden", "Feed-forward hidden size", 128, 8192, "Units in the hidden layer of each encoder block."),
    _count("pool_hidden", "Pooling hidden size", 64, 4096, "Units in the hidden layer of the attention pooling."),
    _count("num_heads", "Number of attention heads", 2, 16, "Attention heads in each encoder block."),
    _count("num_blocks", "Number of encoder blocks", 2, 24, "Encoder blocks, one after the other."),
    DeployedField(
        "start_lr", "Initial learning rate", "float64", 0.0001, 0.0001, 1, 0.00001, "Learning rate of the first epoch."
    ),
)
"""The deployed form, in its order."""
