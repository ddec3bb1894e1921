"""Makes the bundle of a small network that has seen a few thousand tracks."""

from __future__ import annotations

from pathlib import Path

import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.export import export_bundle
from pidml.species import TARGET_NAMES
from pidml.training import train


def make_bundle(folder: Path, architecture: str = "masked-mlp", features: tuple[str, ...] = ()) -> Path:
    """Train on simulated tracks and export; returns the bundle's folder."""
    torch.set_num_threads(1)
    chosen = {"features": features} if features else {}
    prepared = write_prepared(folder / "data", (4000, 2000, 1000), **chosen)  # type: ignore[arg-type]
    job = small_job(architecture, max_epochs=1)
    (folder / "trained").mkdir()
    train(prepared, job, TARGET_NAMES, folder / "work", folder / "trained")
    export_bundle([folder / "trained"], prepared, job, folder / "bundle")
    return folder / "bundle"
