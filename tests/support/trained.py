"""Trains small models of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.small_training import small_job

from pidml.data.prepared import PreparedDataset
from pidml.response import load_response, train_tpc_response
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.training import train


def trained(
    prepared: PreparedDataset,
    folder: Path,
    architecture: str = "masked-mlp",
    experimental: PreparedDataset | None = None,
    **sections: dict[str, Any],
) -> tuple[JobSpec, list[Path]]:
    """Train a model for one epoch below ``folder``; returns the job and what training wrote, per network.

    Args:
        prepared: the data.
        folder: existing folder.
        architecture: of the model.
        experimental: data to adapt to, if section ``adaptation`` says so.
        sections: section of the job → settings that differ from those of a small job.
    """
    content = small_job(architecture, max_epochs=1).model_dump(mode="json")
    for section, settings in sections.items():
        content[section] |= settings
    job = JobSpec.model_validate(content)
    derived = []
    if job.dataset.derive:
        (folder / "response").mkdir()
        train_tpc_response(prepared, job, folder / "response")
        derived = [load_response(folder / "response", prepared.scaling)]
    parts = [TARGET_NAMES] if job.model.heads == "shared" else [(name,) for name in TARGET_NAMES]
    folders = []
    for number, species in enumerate(parts):
        out = folder / f"trained-{number}"
        out.mkdir()
        train(prepared, job, species, folder / f"work-{number}", out, experimental=experimental, derived=derived)
        folders.append(out)
    return job, folders
