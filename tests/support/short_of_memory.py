"""Trains in a process whose address space is limited, so that the allocator itself refuses; prints a JSON line.

Usage: python short_of_memory.py PREPARED WORK OUT MEBIBYTES [ARCHITECTURE]
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from pathlib import Path

import torch
from support.small_training import small_job

from pidml.data.prepared import PreparedDataset
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.training import train


def wide_job(**training: object) -> JobSpec:
    """Return a job whose whole batches need some hundred MiB."""
    job = small_job(**{"batch_size": 16_384, "max_epochs": 2, "schedule": "constant", **training})
    return job.model_copy(update={"model": job.model.model_copy(update={"hidden": (1024,), "dropout": 0.0})})


def main(prepared: str, work: str, out: str, mebibytes: str, architecture: str = "masked-mlp") -> None:
    """Load everything, limit what may be added to it, and train."""
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    data = PreparedDataset.open(prepared)
    Path(out).mkdir(parents=True)
    warm = Path(work).with_name("warm")
    warm.mkdir()
    train(data, small_job(architecture, max_epochs=1), TARGET_NAMES, warm / "work", warm)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + int(mebibytes) * 2**20,) * 2)
    job = wide_job() if architecture == "masked-mlp" else small_job(architecture)
    summary = train(data, job, TARGET_NAMES, Path(work), Path(out))
    print(json.dumps({"parts": summary.parts, "loss": summary.validation_loss, "epochs": summary.epochs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
