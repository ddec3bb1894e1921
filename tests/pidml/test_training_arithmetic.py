"""Compiled networks and reduced precision: the same training, within what rounding allows."""

import numpy as np
import pytest
import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.errors import ToolMissing
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (6000, 3000, 1000))


def trained(prepared, folder, name, architecture="masked-mlp", **training):
    (folder / name).mkdir()
    job = small_job(architecture, max_epochs=3, **training)
    job = job.model_copy(update={"model": job.model.model_copy(update={"dropout": 0.0})})
    return train(prepared, job, TARGET_NAMES, folder / f"{name}.work", folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["masked-mlp", "attention"])
def test_a_compiled_network_trains_alike_and_leaves_no_trace(prepared, tmp_path, architecture):
    plain = trained(prepared, tmp_path, "plain", architecture)
    compiled = trained(prepared, tmp_path, "compiled", architecture, compile=True)
    assert compiled.validation_loss == pytest.approx(plain.validation_loss, rel=1e-3)
    states = [torch.load(tmp_path / name / "model.pt", weights_only=True)["state"] for name in ("plain", "compiled")]
    assert list(states[0]) == list(states[1])
    features = prepared.split("test").features
    scores = [load_classifier(tmp_path / name).predict(features) for name in ("plain", "compiled")]
    np.testing.assert_allclose(*scores, atol=0.02)


def test_without_a_compiler_this_is_said_before_training(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    with pytest.raises(ToolMissing, match=r"training\.compile needs a C\+\+ compiler"):
        trained(prepared, tmp_path, "out", compile=True)
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [("masked-mlp", {}), ("masked-mlp", {"gradient_clip": 1.0}), ("ensemble", {}), ("mlp", {}),
     pytest.param("attention", {}, marks=pytest.mark.slow)],
)  # fmt: skip
def test_bf16_trains_nearly_as_well(prepared, tmp_path, architecture, settings):
    full = trained(prepared, tmp_path, "full", architecture, **settings)
    half = trained(prepared, tmp_path, "half", architecture, precision="bf16-mixed", **settings)
    assert half.validation_loss != full.validation_loss
    assert half.validation_loss == pytest.approx(full.validation_loss, rel=0.1)
    state = torch.load(tmp_path / "half" / "model.pt", weights_only=True)["state"]
    assert {value.dtype for value in state.values()} == {torch.float32}


@pytest.mark.parametrize("settings", [{}, {"gradient_clip": 1.0}, {"optimizer": "sgd"}], ids=["", "clipped", "sgd"])
def test_fp16_with_scaled_gradients_trains_nearly_as_well(prepared, tmp_path, settings):
    full = trained(prepared, tmp_path, "full", **settings)
    half = trained(prepared, tmp_path, "half", precision="16-mixed", **settings)
    assert half.validation_loss == pytest.approx(full.validation_loss, rel=0.1)
