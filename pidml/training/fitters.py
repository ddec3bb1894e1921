"""From the name of an architecture to what fits it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from pidml.data.prepared import PreparedDataset
from pidml.errors import ToolMissing
from pidml.models.base import Derived
from pidml.spec import JobSpec
from pidml.training.fit import Fit
from pidml.training.record import AfterEpoch

#: Architecture → module whose ``fit`` fits it; all others are networks, fitted by gradients.
_MODULES = {"boosted-trees": "pidml.training.boosting", "random-forest": "pidml.training.random_forest"}
_NETWORKS = "pidml.training.fit"


class Fitter(Protocol):
    """Fits a model from the beginning or from its checkpoint; see :func:`pidml.training.fit.fit`."""

    def __call__(
        self, prepared: PreparedDataset, job: JobSpec, species: Sequence[str], work_dir: Path, *, pool_rows: int,
        after_epoch: AfterEpoch | None, experimental: PreparedDataset | None, derived: Sequence[Derived],
        memory_bytes: int | None, resident_bytes: int | None,
    ) -> Fit:  # fmt: skip
        """Return the fitted model."""


def fitter(architecture: str) -> Fitter:
    """Return what fits models of an architecture."""
    return cast("Fitter", importlib.import_module(_MODULES.get(architecture, _NETWORKS)).fit)


def library(module: str, package: str, architecture: str) -> ModuleType:
    """Import the library that grows an architecture's trees.

    Raises:
        ToolMissing: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ToolMissing(
            f"model.architecture: {architecture} is trained with the package {package}, which is not installed",
            "pip install 'pidml[boosting]'",
        ) from error
