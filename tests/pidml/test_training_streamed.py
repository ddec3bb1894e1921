"""A sample that is streamed does not become resident, however large it is."""

from __future__ import annotations

import json

import numpy as np
import psutil
import pytest
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.data.prepared import PreparedDataset
from pidml.species import TARGET_NAMES
from pidml.training import train
from pidml.training.module import TrainingModule

pytestmark = pytest.mark.usefixtures("one_thread")

#: Encoded features of 16 (51 columns of four bytes), and the class.
BYTES_PER_TRACK = 212


def repeated(folder, times):
    """Write a prepared dataset whose training sample is a small one, repeated."""
    small = write_prepared(folder, (20_000, 1000, 10))
    for name in ("features", "pdg", "aux"):
        path = small.path / "train" / f"{name}.npy"
        np.save(path, np.concatenate([np.load(path)] * times))
    meta = small.meta | {"counts": {"train": 20_000 * times, "validation": 1000, "test": 10}}
    (small.path / "meta.json").write_text(json.dumps(meta))
    return PreparedDataset.open(small.path)


def growth(prepared, folder, monkeypatch, **options):
    """Return by how many bytes the resident memory of this process grows in a training, at most."""
    original, found, process = TrainingModule.training_step, [], psutil.Process()

    def step(self, batch, index):
        found.append(process.memory_info().rss)
        return original(self, batch, index)

    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(TrainingModule, "training_step", step)
        job, before = small_job(max_epochs=1, batch_size=8192), process.memory_info().rss
        train(prepared, job, TARGET_NAMES, folder / "work", folder, pool_rows=65_536, **options)
    return max(found) - before


def test_memory_is_bounded_by_the_pool_not_by_the_sample(tmp_path, monkeypatch):
    sizes = (8, 60)
    small, large = (
        growth(repeated(tmp_path / f"set{size}", size), tmp_path / str(size), monkeypatch, resident_bytes=0)
        for size in sizes
    )
    assert large - small < 0.3 * (sizes[1] - sizes[0]) * 20_000 * BYTES_PER_TRACK
