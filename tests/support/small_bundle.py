"""Makes the bundle of a small network that has seen a few thousand tracks."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.export import Bundle, export_bundle
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


def changed_bundle(folder: Path, copy: Path, name: str, content: bytes) -> Bundle:
    """Copy a bundle and replace one of its files, as the copy's manifest says; returns the copy, opened."""
    shutil.copytree(folder, copy)
    (copy / name).write_bytes(content)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(copy, threads=1)
