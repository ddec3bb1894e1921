"""Reads tables of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from pidml.species import TARGET_NAMES

CERTAINTIES = [f"fMlCert{name.capitalize()}" for name in TARGET_NAMES]
ACCEPTED = [f"fMlAccepted{name.capitalize()}" for name in TARGET_NAMES]


def read_root(path: Path) -> dict[str, NDArray[Any]]:
    """Return all columns of a table of scores."""
    with uproot.open(path) as file:
        return dict(file["pidscores"].arrays(library="np"))


def stacked(scores: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[Any]:
    """Return columns side by side, (tracks, columns)."""
    return np.stack([scores[name] for name in names], axis=1)
