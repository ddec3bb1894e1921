"""What preparation leaves on the disk, when it is full too, and how much memory it takes."""

import errno
import os
import subprocess
import tracemalloc

import pytest
from prepared_input import content, numbered_frames
from track_files import make_columns, write_tables

from pidml import atomic
from pidml.data import prepare as prepare_module
from pidml.data.prepare import prepare
from pidml.data.prepared import SPLITS, PreparedDataset
from pidml.errors import DiskFull, StoreError
from pidml.spec.data_sections import Preparation


@pytest.fixture
def input_file(tmp_path):
    frames = numbered_frames()
    return write_tables(tmp_path / "in.root", frames, baskets=2), frames


def test_prepared_data_is_not_overwritten(tmp_path, input_file):
    prepare([input_file[0]], tmp_path / "out", Preparation(), simulation=True, seed=1)
    before = content(PreparedDataset.open(tmp_path / "out"))
    with pytest.raises(StoreError, match="not empty"):
        prepare([input_file[0]], tmp_path / "out", Preparation(), simulation=True, seed=2)
    assert content(PreparedDataset.open(tmp_path / "out")) == before


def test_failed_write_leaves_nothing(tmp_path, input_file, monkeypatch):
    path, _ = input_file
    written, real = [], os.pwrite

    def full(descriptor, data, offset):
        written.append(len(data))
        if len(written) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    store = tmp_path / "store"
    with pytest.raises(DiskFull, match="no space left"), atomic.atomic_directory(store / "data") as folder:
        prepare([path], folder, Preparation(), simulation=True, seed=1)
    assert list(store.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk_is_named_and_leaves_nothing(tiny_disk, input_file):
    path, _ = input_file
    with pytest.raises(DiskFull, match=str(tiny_disk)), atomic.atomic_directory(tiny_disk / "data") as folder:
        prepare([path], folder, Preparation(), simulation=True, seed=1)
    assert list(tiny_disk.iterdir()) == []


def test_nothing_but_the_dataset_stays_in_the_directory(tmp_path, input_file):
    path, _ = input_file
    done = []
    prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=1, progress=lambda *n: done.append(n))
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == sorted([*SPLITS, "meta.json", "scaling.json"])
    assert done[-1] == (6000, 6000)
    assert PreparedDataset.open(tmp_path / "out").meta["seed"] == 1


def test_memory_is_bounded_by_chunk_and_bucket_not_by_the_input(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "_BUCKET_BYTES", 4_000_000)
    monkeypatch.setattr(prepare_module, "_SPOOL_MEMORY", 2_000_000)
    path = write_tables(tmp_path / "in.root", {f"DF_{i}": make_columns(10_000, i) for i in range(8)})
    peaks, sizes = [], []
    for name, paths in (("small", [path]), ("large", [path] * 12)):
        tracemalloc.start()
        prepare(paths, tmp_path / name, Preparation(), simulation=True, seed=1, chunk=10_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(sum(item.stat().st_size for item in (tmp_path / name).rglob("*.npy")))
    assert sizes[1] > 11 * sizes[0]
    assert peaks[1] - peaks[0] < 0.15 * (sizes[1] - sizes[0])
