"""Where samples are held, as the memory allows, and that what is trained does not depend on it."""

import logging
import resource

import psutil
import pytest
import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.species import TARGET_NAMES
from pidml.training import room, train
from pidml.training.plan import Share
from pidml.training.room import Room, free_memory, group_headroom, rooms

pytestmark = pytest.mark.usefixtures("one_thread")
MAIN = torch.device("cpu")
MIB = 2**20


def write_group(folder, limit, usage, files, *, first_version=False):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if first_version:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    for name, value in zip(names, (limit, usage), strict=False):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {files}\nfile 7\n")


def test_every_control_group_above_a_process_counts(tmp_path):
    write_group(tmp_path / "root" / "slice", 8000, 3000, 500)
    write_group(tmp_path / "root" / "slice" / "job", 4000, 1000, 200)
    write_group(tmp_path / "root" / "slice" / "job" / "step", "max", 900, 100)
    (tmp_path / "own").write_text("0::/slice/job/step\n")
    assert list(group_headroom(tmp_path / "root", tmp_path / "own")) == [3200, 5500]


def test_the_older_control_groups_count_too(tmp_path):
    write_group(tmp_path / "root" / "memory" / "job", 4000, 1000, 200, first_version=True)
    (tmp_path / "own").write_text("5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n")
    assert list(group_headroom(tmp_path / "root", tmp_path / "own")) == [3200]


def test_in_a_container_the_mounted_group_is_the_own_one(tmp_path):
    write_group(tmp_path / "root", 4000, 1000, 200)
    (tmp_path / "own").write_text("0::/kubepods/pod1/container2\n")
    assert list(group_headroom(tmp_path / "root", tmp_path / "own")) == [3200]
    assert list(group_headroom(tmp_path / "root", tmp_path / "absent")) == []


def test_the_tightest_limit_decides(monkeypatch):
    available = psutil.virtual_memory().available
    assert free_memory() <= available
    own = psutil.Process().memory_info()
    assert free_memory(own.rss + 100 * MIB) == pytest.approx(100 * MIB, abs=10 * MIB)
    assert free_memory(2 * (own.rss + 100 * MIB), sharing=2) == pytest.approx(100 * MIB, abs=10 * MIB)
    assert free_memory(MIB) == 0
    monkeypatch.setattr(room, "group_headroom", lambda: [70 * MIB])
    assert free_memory() == 70 * MIB
    assert free_memory(sharing=7) == 10 * MIB
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 50 * MIB, before[1]))
    try:
        assert free_memory() == pytest.approx(50 * MIB, abs=10 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_samples_get_half_of_it_and_less_after_memory_ran_out(monkeypatch):
    monkeypatch.setattr(room, "group_headroom", lambda: [80 * MIB])
    assert rooms(MAIN, Share()) == [Room(MAIN, 40 * MIB)]
    assert rooms(MAIN, Share(0, 2)) == [Room(MAIN, 20 * MIB)]
    assert rooms(MAIN, Share(split=4)) == [Room(MAIN, 10 * MIB)]
    assert rooms(MAIN, Share(split=4), exactly=7) == [Room(MAIN, 7)]


def test_a_gpu_comes_first_and_then_the_machine(monkeypatch):
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(room, "group_headroom", lambda: [80 * MIB])
    figures = {"mem_get_info": (500 * MIB, 900 * MIB), "memory_reserved": 60 * MIB, "memory_allocated": 20 * MIB}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value if device == gpu else None)
    # What PyTorch keeps for itself without using it is free, too.
    assert rooms(gpu, Share(0, 2)) == [Room(gpu, 270 * MIB), Room(MAIN, 20 * MIB)]
    assert rooms(gpu, Share(split=2)) == [Room(gpu, 135 * MIB), Room(MAIN, 20 * MIB)]
    assert rooms(gpu, Share(), exactly=5) == [Room(gpu, 5), Room(MAIN, 5)]


def test_a_gpu_that_has_less_than_it_said_is_left_alone(monkeypatch, caplog):
    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    place, examples = Room(torch.device("cuda", 1), 1000), (torch.zeros(1, 10),)
    monkeypatch.setattr(room, "room_for", refuse)
    assert place.take(examples, 3) is None
    assert place.left == 0
    assert "cuda:1 has less memory than it said" in caplog.text


def test_a_room_is_full_at_some_time():
    place, examples = Room(MAIN, 1000), (torch.zeros(1, 10), torch.zeros(1, dtype=torch.int64))
    features, classes = place.take(examples, 15)  # 40 + 8 bytes each
    assert (features.shape, classes.shape, classes.dtype, place.left) == ((15, 10), (15,), torch.int64, 280)
    assert place.take(examples, 6) is None
    assert place.take(examples, 5) is not None


def test_the_network_does_not_depend_on_how_much_memory_is_free(tmp_path, caplog):
    prepared, states = write_prepared(tmp_path / "set", (2000, 1000, 10)), []
    held = {"plenty": ["train", "validation"], "little": ["validation"], "none": []}
    for name, options in (("plenty", {}), ("little", {"resident_bytes": 1000 * 220}), ("none", {"memory_bytes": 1})):
        (tmp_path / name).mkdir()
        with caplog.at_level(logging.INFO, "pidml"):
            caplog.clear()
            job = small_job(max_epochs=2)
            train(prepared, job, TARGET_NAMES, tmp_path / f"{name}.work", tmp_path / name, **options)
        assert [text.split()[1] for text in caplog.messages if "is held on cpu" in text] == held[name]
        states.append(torch.load(tmp_path / name / "model.pt", weights_only=True)["state"])
    for other in states[1:]:
        assert all(torch.equal(value, other[name]) for name, value in states[0].items())
