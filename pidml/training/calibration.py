"""Makes certainties mean what they say: of the tracks with certainty 0.8, 80 % are of the species.

The logit of a network is replaced by ``factor · logit + offset`` (temperature and bias; Platt, 1999), both fitted on
the validation sample. With the binary objective each species has its own pair; a softmax keeps its sum of 1 with one
factor for all outputs and an offset each. The pair is folded into the network's last layer, so an exported network is
calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidml.training.objective import Objective, loss

_ITERATIONS = 60


@dataclass(frozen=True)
class Calibration:
    """The correction of each output and what it achieves.

    Attributes:
        factor, offset: one value per output; 1 and 0 change nothing.
        loss_before, loss_after: validation loss in nats per track.
    """

    factor: tuple[float, ...]
    offset: tuple[float, ...]
    loss_before: float
    loss_after: float


def calibrate(objective: Objective, logits: Tensor, classes: Tensor) -> Calibration:
    """Fit the correction that minimises the loss; without gain, the one that changes nothing.

    Args:
        objective: what the network was trained for.
        logits: float32 (tracks, outputs) on the validation sample.
        classes: int64 (tracks,), as for :func:`pidml.training.objective.loss`.
    """
    logits = logits.detach().double()
    outputs = logits.shape[1]
    shared = objective == "softmax"
    log_factor = torch.zeros(1 if shared else outputs, dtype=torch.float64, requires_grad=True)
    offset = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_factor, offset], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def evaluated() -> Tensor:
        return loss(objective, logits * log_factor.exp() + offset, classes)

    def closure() -> float:
        optimizer.zero_grad()
        value = evaluated()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    before = float(loss(objective, logits, classes))
    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        after = float(evaluated())
        if not after < before:
            return Calibration((1.0,) * outputs, (0.0,) * outputs, before, before)
        factor = log_factor.exp().expand(outputs)
        return Calibration(tuple(factor.tolist()), tuple(offset.tolist()), before, after)
