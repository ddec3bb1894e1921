"""What training minimises, and how logits become certainties."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Objective = Literal["binary", "softmax"]


def output_count(objective: Objective, species: int) -> int:
    """Return the number of logits for ``species`` species: softmax has one more, for every other particle."""
    return species + (objective == "softmax")


def loss(objective: Objective, logits: Tensor, classes: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean loss per track (nats): cross entropy, summed over the species' yes-or-no questions if binary.

    Args:
        objective: binary or softmax.
        logits: (tracks, outputs).
        classes: int64 (tracks,), position of the track's species, or the number of species for all others.
        weights: (tracks,), factors of the tracks' losses, of mean 1 over the sample.
    """
    if objective == "softmax":
        if weights is None:
            return functional.cross_entropy(logits, classes)
        return (functional.cross_entropy(logits, classes, reduction="none") * weights).mean()
    # Σ softplus(z) − z of the track's own species; the appended 0 is picked by tracks of no species.
    own = functional.pad(logits, (0, 1)).gather(1, classes[:, None])
    if weights is not None:
        return ((functional.softplus(logits).sum(dim=1) - own[:, 0]) * weights).mean()
    return (functional.softplus(logits).sum() - own.sum()) / len(logits)


def certainty(objective: Objective, logits: Tensor) -> Tensor:
    """Return certainties in [0, 1], ``(tracks, species)``."""
    if objective == "softmax":
        return torch.softmax(logits, dim=1)[:, :-1]
    return torch.sigmoid(logits)
