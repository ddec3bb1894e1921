"""A training that memory does not suffice for takes its batches in smaller parts; the result stays the same."""

import errno
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import short_of_memory
from support.prepared_data import write_prepared
from support.short_of_memory import wide_job
from support.small_training import adapting, small_job
from xgboost.core import XGBoostError

from pidml.errors import OutOfMemory
from pidml.species import TARGET_NAMES
from pidml.tracks import feature_pattern
from pidml.training import record, train
from pidml.training.memory import Limit, memory_ran_out, with_smaller_parts
from pidml.training.module import TrainingModule
from pidml.training.record import CHECKPOINT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (20_000, 3000, 10))


def limited(prepared, folder, mebibytes, *architecture):
    command = [sys.executable, short_of_memory.__file__, prepared.path, folder / "work", folder / "out", mebibytes]
    command += architecture
    environment = {"PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, env=environment)


def test_the_allocator_refuses_and_parts_give_the_same_result(prepared, tmp_path):
    done = limited(prepared, tmp_path, 160)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["parts"] > 1
    assert "memory ran out" in done.stderr
    assert f"each batch is now taken in {told['parts']} parts" in done.stderr
    assert json.loads((tmp_path / "out" / "training.json").read_text())["parts"] == told["parts"]
    (tmp_path / "whole").mkdir()
    whole = train(prepared, wide_job(), TARGET_NAMES, tmp_path / "whole.work", tmp_path / "whole")
    assert whole.parts == 1
    assert told["loss"] == pytest.approx(whole.validation_loss, rel=1e-4)


def refuse_once(monkeypatch, at):
    """Ask the allocator for more than there can be, once, at a step of training."""
    original, steps = TrainingModule.training_step, iter(range(10**9))

    def step(self, batch, index):
        if next(steps) == at:
            torch.empty(2**50)
        return original(self, batch, index)

    monkeypatch.setattr(TrainingModule, "training_step", step)


def states(*folders):
    return [torch.load(folder / "model.pt", weights_only=True)["state"] for folder in folders]


def test_completed_epochs_are_kept_and_the_number_of_parts_is_remembered(prepared, tmp_path, monkeypatch, caplog):
    job = wide_job(batch_size=500, max_epochs=4)
    for name in ("refused", "whole"):
        (tmp_path / name).mkdir()
    whole = train(prepared, job, TARGET_NAMES, tmp_path / "whole.work", tmp_path / "whole")
    epochs = []

    def stop_after_third(epoch, _):
        epochs.append(epoch.epoch)
        return len(epochs) == 3

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        refuse_once(patched, at=50)  # in the second epoch of 40 steps
        with pytest.raises(record.Interrupted):
            train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path / "refused", after_epoch=stop_after_third)
    assert epochs == [0, 1, 2]
    assert "each batch is now taken in 2 parts" in caplog.text
    kept = torch.load(tmp_path / "work" / CHECKPOINT, weights_only=True)
    assert kept["global_step"] == 120
    refused = train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path / "refused")
    assert (refused.parts, refused.resumed_epochs, refused.epochs) == (2, 3, 4)
    histories = [
        np.loadtxt(tmp_path / name / "history.csv", delimiter=",", skiprows=1)[:, :4] for name in ("refused", "whole")
    ]
    np.testing.assert_array_equal(histories[0][0], histories[1][0])
    np.testing.assert_allclose(*histories, rtol=1e-3)
    assert refused.validation_loss == pytest.approx(whole.validation_loss, rel=1e-3)


def test_what_means_that_memory_ran_out():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**50)
    assert memory_ran_out(refused.value)
    with pytest.raises(MemoryError) as refused:
        np.empty(2**50)
    assert memory_ran_out(refused.value)
    assert memory_ran_out(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not memory_ran_out(OSError(errno.ENOSPC, "No space left on device"))
    assert memory_ran_out(torch.OutOfMemoryError("CUDA out of memory."))
    assert not memory_ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_other_errors_are_not_tried_again():
    calls = []

    def attempt(split):
        calls.append(split)
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        with_smaller_parts(attempt, 1, Limit(lambda: 100))
    assert calls == [1]


def test_parts_double_until_one_track_each():
    calls = []

    def attempt(split):
        calls.append(split)
        torch.empty(2**50)

    with pytest.raises(OutOfMemory, match="batches in 64 parts"):
        with_smaller_parts(attempt, 2, Limit(lambda: 100))
    assert calls == [2, 4, 8, 16, 32, 64]


def test_parts_remembered_from_more_tracks_per_process_are_no_more_than_there_are_now():
    assert with_smaller_parts(lambda split: split, 64, Limit(lambda: 20)) == 20
    assert with_smaller_parts(lambda split: split, 8, Limit(lambda: 20)) == 8


def refuse_always(monkeypatch):
    """Let no step of training have the memory that it asks for; return the parts that were tried."""
    tried = []

    def step(self, batch, index):
        tried.append(self.parts)
        torch.empty(2**50)

    monkeypatch.setattr(TrainingModule, "training_step", step)
    return tried


@pytest.mark.parametrize("undersample", [False, True])
def test_a_sample_smaller_than_a_batch_is_divided_as_far_as_it_goes(tmp_path, monkeypatch, undersample):
    data, tried = write_prepared(tmp_path / "set", (90, 60, 10)), refuse_always(monkeypatch)
    rows = 90
    if undersample:
        counts = np.bincount(feature_pattern(np.asarray(data.split("train").features), data.features))
        rows = counts[counts > 0].min() * np.count_nonzero(counts)
    with pytest.raises(OutOfMemory, match="cannot be divided further") as error:
        train(data, small_job(batch_size=512, undersample=undersample), ["pion"], tmp_path / "work", tmp_path)
    assert error.value.code == "P606"
    assert "more memory" in error.value.hint
    assert tried == [2**power for power in range(int(np.log2(rows)) + 1)]


def test_a_streamed_sample_goes_on_in_parts_too(prepared, tmp_path, monkeypatch):
    job = wide_job(batch_size=500, max_epochs=2)
    for name in ("refused", "whole"):
        (tmp_path / name).mkdir()
    whole = train(prepared, job, TARGET_NAMES, tmp_path / "whole.work", tmp_path / "whole")
    refuse_once(monkeypatch, at=50)
    refused = train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path / "refused", resident_bytes=0)
    assert (refused.parts, whole.parts) == (2, 1)
    assert refused.validation_loss == pytest.approx(whole.validation_loss, rel=1e-3)


def test_with_adaptation_a_batch_is_not_divided_and_the_error_says_what_helps(tmp_path, monkeypatch):
    simulated = write_prepared(tmp_path / "set", (600, 300, 10))
    data, tried = write_prepared(tmp_path / "data", (600, 300, 10), 8, simulation=False), refuse_always(monkeypatch)
    with pytest.raises(OutOfMemory, match="memory ran out with whole batches") as error:
        train(
            simulated, adapting(small_job(), "dann"), ["pion"], tmp_path / "work", tmp_path, experimental=data
        )  # fmt: skip
    assert "lower training.batch_size" in error.value.hint
    assert tried == [1]


def test_the_errors_of_growing_trees_are_named(tmp_path, monkeypatch):
    data = write_prepared(tmp_path / "set", (600, 300, 10))

    def refuse(self, block):
        raise XGBoostError("std::bad_alloc") if "Boosting" in type(self).__name__ else MemoryError

    for architecture, grower, hint in (
        ("boosted-trees", "boosting._Boosting", "preparation.max_tracks"),
        ("random-forest", "random_forest._RandomForest", "model.tree_tracks"),
    ):
        monkeypatch.setattr(f"pidml.training.{grower}.grow", refuse)
        with pytest.raises(OutOfMemory, match=r"memory ran out while .*trees grew on") as error:
            train(data, small_job(architecture), ["pion"], tmp_path / architecture, tmp_path)
        assert hint in error.value.hint


def test_what_the_operating_system_refuses_to_trees_is_named(prepared, tmp_path):
    done = limited(prepared, tmp_path, 1, "boosted-trees")
    assert done.returncode == 1
    assert "[P606] memory ran out" in done.stderr
