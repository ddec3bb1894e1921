"""Pieces of tensors."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def pieces(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of at most ``rows`` consecutive rows of all tensors, which have equally many."""
    for start in range(0, len(tensors[0]), rows):
        yield tuple(tensor[start : start + rows] for tensor in tensors)
