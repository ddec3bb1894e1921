"""Hides from a network, inside its graph, what its training never showed it.

Weights that belong to a detector or a feature which no training track had were never trained: with such an input a
network answers at random. See :mod:`pidml.data.taught` for what is hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pidml import tracks
from pidml.data.taught import Taught
from pidml.models.base import constant


class Hiding(nn.Module):
    """Maps standardised features ``(batch, features)`` to those that a network may see.

    Features that all training tracks lacked become NaN, constant ones the constant; tracks with a missing pattern that
    was not learned lose a detector more, where it was learned without it.
    """

    lacked: Tensor
    fixed: Tensor
    value: Tensor
    nothing: Tensor
    detector: Tensor
    pattern: Tensor
    hidden: Tensor

    def __init__(self, taught: Taught, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        names, ignored = taught.features, taught.ignored
        self.lacks, self.fixes = (any((v is None) == none for v in ignored.values()) for none in (True, False))
        lacked = [name in ignored and ignored[name] is None for name in names]
        fixed = [ignored.get(name) is not None for name in names]
        value = [
            ((ignored.get(name) or 0.0) - centre) / width for name, centre, width in zip(names, mean, std, strict=True)
        ]
        further = {p: taught.answered_as(p) for p in taught.possible}
        self.routes = {p: other for p, other in further.items() if other is not None and other != p}
        own = {flag: set(columns) & set(names) for flag, columns in tracks.DETECTOR_COLUMNS.items()}
        detector = [[float(name in columns) for columns in own.values()] for name in names]
        pattern = [[float(bool(p & flag)) for flag in own] for p in self.routes]
        hidden = [
            [float(any(other & ~p & flag and name in own[flag] for flag in own)) for name in names]
            for p, other in self.routes.items()
        ]
        for key, content, kind in (
            ("lacked", lacked, torch.bool), ("fixed", fixed, torch.bool), ("value", value, torch.float32),
            ("nothing", torch.nan, torch.float32), ("detector", detector, torch.float32),
            ("pattern", pattern, torch.float32), ("hidden", hidden, torch.float32),
        ):  # fmt: skip
            self.register_buffer(key, constant(content, kind), persistent=False)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to hide."""
        return not (self.lacks or self.fixes or self.routes)

    def forward(self, standardised: Tensor) -> Tensor:
        """Return features of the same shape."""
        x = standardised
        if self.lacks:
            x = torch.where(self.lacked, self.nothing, x)
        if self.fixes:
            x = torch.where(self.fixed & ~torch.isnan(x), self.value, x)
        if not self.routes:
            return x
        missing = torch.isnan(x).to(x.dtype)
        lacking = (missing @ self.detector > 0.5).to(x.dtype)
        this = ((lacking[:, None, :] - self.pattern).abs().sum(dim=2) < 0.5).to(x.dtype)
        return torch.where(this @ self.hidden > 0.5, self.nothing, x)
