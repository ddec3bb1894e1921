"""Compilation of a network's computations, and a clear word where it cannot be done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pidml.errors import ToolMissing


def compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the function, compiled for the shapes that it meets when it is first called with them.

    The function is wrapped, not the network that it belongs to: names of weights stay as they are.

    Raises:
        ToolMissing: there is no C++ compiler (``CXX``, or g++).
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ToolMissing(
            f"training.compile needs a C++ compiler; {compiler} is not installed",
            "install g++ (or name another in CXX), or set training.compile: false",
        )
    result: Any = torch.compile(function, dynamic=False)
    return result  # type: ignore[no-any-return]
