"""A training that broke off in the middle of an epoch and is resumed gives the network of an uninterrupted one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.response import fit_response
from pidml.spec.response_section import Response
from pidml.species import TARGET_NAMES
from pidml.training import train
from pidml.training.module import TrainingModule
from pidml.training.record import CHECKPOINT

pytestmark = pytest.mark.usefixtures("one_thread")


class Lost(Exception):
    """Something that no part of the package knows."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (6000, 2000, 10))


@pytest.fixture(scope="module")
def response(prepared):
    return fit_response(prepared, Response(epochs=1, species=("pion", "kaon", "proton")), seed=1).response


def deriving(job):
    return job.model_copy(update={"dataset": job.dataset.model_copy(update={"derive": ("tpc_nsigma",)})})


def breaking_off(monkeypatch, epoch):
    """Let the training end in the middle of an epoch, with an error of its own."""
    original, steps = TrainingModule.training_step, iter(range(10**9))

    def step(self, batch, index):
        if self.current_epoch == epoch and next(steps) == 5:
            raise Lost
        return original(self, batch, index)

    monkeypatch.setattr(TrainingModule, "training_step", step)


def interrupted_and_whole(monkeypatch, prepared, folder, job, **options):
    """Train twice, once with a break in the second epoch; both must give the same."""
    for name in ("resumed", "whole"):
        (folder / name).mkdir()
    with monkeypatch.context() as patched:
        breaking_off(patched, epoch=1)
        with pytest.raises(Lost):
            train(prepared, job, TARGET_NAMES, folder / "work", folder / "resumed", **options)
    resumed = train(prepared, job, TARGET_NAMES, folder / "work", folder / "resumed", **options)
    whole = train(prepared, job, TARGET_NAMES, folder / "whole.work", folder / "whole", **options)
    assert (resumed.resumed_epochs, whole.resumed_epochs, whole.epochs) == (1, 0, 3)
    first, second = (
        torch.load(folder / name / "model.pt", weights_only=True)["state"] for name in ("resumed", "whole")
    )
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []
    histories = [
        np.loadtxt(folder / name / "history.csv", delimiter=",", skiprows=1)[:, :4] for name in ("resumed", "whole")
    ]
    np.testing.assert_array_equal(*histories)


@pytest.mark.parametrize("architecture", ["ensemble", "mlp"])
def test_other_architectures(monkeypatch, prepared, tmp_path, architecture):
    interrupted_and_whole(monkeypatch, prepared, tmp_path, small_job(architecture, max_epochs=3))


@pytest.mark.parametrize("undersample", [False, True])
def test_streamed_samples_and_undersampling(monkeypatch, prepared, tmp_path, undersample):
    job = small_job(max_epochs=3, undersample=undersample, batch_size=32, class_weights="balanced")
    interrupted_and_whole(monkeypatch, prepared, tmp_path, job, resident_bytes=0)


def test_undersampling_from_memory(monkeypatch, prepared, tmp_path):
    interrupted_and_whole(
        monkeypatch, prepared, tmp_path, small_job(max_epochs=3, undersample=True, batch_size=32, objective="softmax")
    )


def test_derived_features(monkeypatch, prepared, response, tmp_path):
    interrupted_and_whole(monkeypatch, prepared, tmp_path, deriving(small_job(max_epochs=3)), derived=[response])


def test_scaled_gradients(monkeypatch, prepared, tmp_path):
    job = small_job(max_epochs=3, precision="16-mixed", batch_size=64)
    interrupted_and_whole(monkeypatch, prepared, tmp_path, job)
    resumed, whole = (
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["MixedPrecision"] for name in ("work", "whole.work")
    )
    assert resumed == whole
    assert resumed["_growth_tracker"] > 2 * 6000 // 64  # steps since the scale changed: they, too, were not lost
