"""Runs a small training in a process of its own, which can end itself in the middle as by ``kill -9``.

Usage: python small_training.py PREPARED WORK OUT ARCHITECTURE[+METHOD] [step N | epoch N | block N] [DEVICES]

With a METHOD of domain adaptation the network is adapted to the samples in ``experimental`` beside PREPARED.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from pidml.data.prepared import PreparedDataset
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.training import blocks, record, train
from pidml.training.module import TrainingModule


def small_job(architecture: str = "masked-mlp", **training: Any) -> JobSpec:
    """Return a job that trains in seconds."""
    settings = {
        "batch_size": 256, "max_epochs": 4, "learning_rate": 0.01, "schedule": "one-cycle", "patience": 4,
        "accelerator": "cpu",
    }  # fmt: skip
    model = {
        "architecture": architecture, "imputation": "regression", "hidden": [24, 16], "embed_hidden": [16],
        "d_model": 8, "ff_hidden": 16, "pool_hidden": [8], "rounds": 40, "depth": 4, "trees": 40, "leaves": 200,
    }  # fmt: skip
    return JobSpec.model_validate({"model": model, "training": settings | training})


def adapting(job: JobSpec, method: str, **settings: Any) -> JobSpec:
    """Return the job with domain adaptation; which files it names does not matter to a training."""
    adaptation = {"method": method, "files": ["data.root"], "hidden": [16]} | settings
    return JobSpec.model_validate(job.model_dump(mode="json") | {"adaptation": adaptation})


def die_at_step(number: int) -> None:
    """Kill this process at the beginning of the training step ``number``."""
    original, steps = TrainingModule.training_step, iter(range(10**9))

    def step(self: TrainingModule, batch: Any, index: int) -> Any:
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, batch, index)

    TrainingModule.training_step = step  # type: ignore[method-assign]


def die_after_epoch(number: int) -> None:
    """Kill this process right after the checkpoint of the epoch ``number`` is written."""
    original = record.Recorder._save

    def save(self: record.Recorder, trainer: Any, row: record.Epoch) -> None:
        original(self, trainer, row)
        if row.epoch == number:
            os.kill(os.getpid(), signal.SIGKILL)

    record.Recorder._save = save  # type: ignore[method-assign]


def die_after_block(number: int) -> None:
    """Kill this process right after the checkpoint of a block of trees is written."""
    original = blocks._save

    def save(work_dir: Path, kept: record.Record, grower: Any) -> None:
        original(work_dir, kept, grower)
        if len(kept.rows) == number + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    blocks._save = save


def main(
    prepared: str, work: str, out: str, architecture: str, kind: str = "", number: str = "0", devices: str = "1"
) -> None:
    """Train, and die where asked to."""
    torch.set_num_threads(1)
    if kind:
        {"step": die_at_step, "epoch": die_after_epoch, "block": die_after_block}[kind](int(number))
    Path(out).mkdir(parents=True)
    architecture, _, method = architecture.partition("+")
    job, experimental = small_job(architecture, devices=int(devices)), None
    if method:
        job, experimental = adapting(job, method), PreparedDataset.open(Path(prepared).with_name("experimental"))
    data = PreparedDataset.open(prepared)
    train(data, job, TARGET_NAMES, Path(work), Path(out), experimental=experimental)


if __name__ == "__main__":
    main(*sys.argv[1:])
