import csv
import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from support import small_training
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.errors import Diverged, Interrupted, SpeciesAbsent, TrainingError
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import load_classifier, train
from pidml.training.record import CHECKPOINT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (8000, 4000, 3000))


def trained(prepared, folder, job=None, species=TARGET_NAMES, **options):
    out = folder / "out"
    out.mkdir(parents=True)
    return train(prepared, job or small_job(), species, folder / "work", out, **options), out


@pytest.mark.parametrize("architecture", ["masked-mlp", "attention", "ensemble", "mlp"])
@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_training_learns_and_writes_what_it_says(prepared, tmp_path, architecture, objective):
    summary, out = trained(prepared, tmp_path, small_job(architecture, objective=objective, learning_rate=0.02))
    assert sorted(path.name for path in out.iterdir()) == [
        "history.csv",
        "model.pt",
        "thresholds.json",
        "training.json",
        "validation_certainty.npy",
    ]
    with (out / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert float(rows[-1]["train_loss"]) < 0.7 * float(rows[0]["train_loss"])
    assert min(float(row["val_loss"]) for row in rows) == summary.validation_loss
    assert json.loads((out / "training.json").read_text())["best_epoch"] == summary.best_epoch
    thresholds = json.loads((out / "thresholds.json").read_text())
    assert thresholds == summary.thresholds

    classifier = load_classifier(out)
    test = prepared.split("validation")
    certainty = classifier.predict(test.features)
    assert certainty.dtype == np.float32
    assert certainty.shape == (4000, 6)
    assert ((certainty >= 0) & (certainty <= 1)).all()
    for index, target in enumerate(TARGETS):
        f1 = f1_score(test.pdg == target.pdg, certainty[:, index] >= thresholds[target.name])
        assert f1 == pytest.approx(summary.validation_f1[target.name], abs=1e-6)
    assert summary.validation_f1["pion"] > 0.9


def test_separate_networks_become_one_classifier(prepared, tmp_path):
    outs = []
    for name in ("proton", "pion"):
        summary, out = trained(prepared, tmp_path / name, species=[name])
        assert summary.species == (name,)
        outs.append(out)
    both = load_classifier(outs)
    assert both.species == ("pion", "proton")
    features = prepared.split("test").features
    each = np.concatenate(
        [load_classifier(outs[1]).predict(features), load_classifier(outs[0]).predict(features)], axis=1
    )
    np.testing.assert_array_equal(both.predict(features), each)
    with pytest.raises(TrainingError, match="given twice"):
        load_classifier([outs[0], outs[0]])
    other = write_prepared(tmp_path / "other", (3000, 1000, 10), seed=99)
    _, out = trained(other, tmp_path / "kaon", small_job(max_epochs=1), species=["kaon"])
    with pytest.raises(TrainingError, match="other features or scaling"):
        load_classifier([outs[0], out])


def test_prediction_does_not_depend_on_the_batch(prepared, tmp_path):
    _, out = trained(prepared, tmp_path, small_job(max_epochs=1))
    classifier, features = load_classifier(out), prepared.split("test").features
    np.testing.assert_allclose(classifier.predict(features[:50], batch=1), classifier.predict(features[:50]), atol=1e-6)
    assert classifier.predict(features[:0]).shape == (0, 6)


def test_a_seed_gives_a_network_and_streaming_trains_too(prepared, tmp_path):
    first, _ = trained(prepared, tmp_path / "a", small_job(max_epochs=2))
    again, _ = trained(prepared, tmp_path / "b", small_job(max_epochs=2))
    other, _ = trained(prepared, tmp_path / "c", small_job(max_epochs=2).model_copy(update={"seed": 1}))
    assert first.validation_loss == again.validation_loss
    assert first.validation_loss != other.validation_loss
    streamed, _ = trained(prepared, tmp_path / "d", small_job(max_epochs=2), resident_bytes=0)
    assert streamed.validation_loss == first.validation_loss
    states = [torch.load(tmp_path / name / "out" / "model.pt", weights_only=True)["state"] for name in ("a", "d")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_undersampling_and_every_schedule_and_optimiser_run(prepared, tmp_path):
    for number, extra in enumerate(
        (
            {"undersample": True, "batch_size": 64},
            {"optimizer": "sgd", "schedule": "cosine", "gradient_clip": 1.0},
            {"schedule": "polynomial", "precision": "bf16-mixed"},
            {"schedule": "exponential"},
            {"schedule": "constant"},
        )
    ):
        summary, _ = trained(prepared, tmp_path / str(number), small_job(**{"max_epochs": 2, **extra}))
        assert np.isfinite(summary.validation_loss)


def test_early_stopping_ends_training_and_keeps_the_best(prepared, tmp_path):
    job = small_job(max_epochs=30, patience=2, min_improvement=0.5, schedule="constant")
    summary, _ = trained(prepared, tmp_path, job)
    assert summary.epochs < 30


def test_divergence_is_an_error_and_keeps_the_last_good_checkpoint(prepared, tmp_path, monkeypatch):
    original = small_training.TrainingModule.training_step

    def step(self, batch, index):
        value = original(self, batch, index)
        if self.current_epoch == 1:
            self.train_sum[0] = torch.nan
        return value

    monkeypatch.setattr(small_training.TrainingModule, "training_step", step)
    with pytest.raises(Diverged, match=r"the loss became nan in epoch 1.*after epoch 0 is kept"):
        trained(prepared, tmp_path)
    assert (tmp_path / "work" / CHECKPOINT).is_file()
    assert not any((tmp_path / "out").iterdir())


def test_a_learning_rate_that_is_too_large_diverges_clearly(prepared, tmp_path):
    job = small_job(optimizer="sgd", learning_rate=1.0, schedule="constant", max_epochs=50, patience=50)
    tampered = job.model_copy(update={"training": job.training.model_copy(update={"learning_rate": 1e12})})
    with pytest.raises(Diverged, match=r"lower training\.learning_rate"):
        trained(prepared, tmp_path, tampered)


def test_absent_species_is_found_before_training(prepared, tmp_path):
    data = write_prepared(tmp_path / "data", (500, 500, 5), keep_pdg=(211, -211))
    with pytest.raises(SpeciesAbsent, match="no kaon"):
        trained(data, tmp_path)
    assert not (tmp_path / "work").exists()


def killed(prepared, work, *arguments):
    """Train in a process that ends itself as by kill -9; nothing may lie in its output folder."""
    out = work.parent / "lost"
    command = [sys.executable, small_training.__file__, *map(str, (prepared.path, work, out, *arguments))]
    environment = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not any(out.iterdir())


@pytest.mark.parametrize(
    ("architecture", "kind", "number", "completed"),
    [
        ("masked-mlp", "step", 75, 2),
        pytest.param("masked-mlp", "epoch", 1, 2, marks=pytest.mark.slow),
        pytest.param("attention", "step", 50, 1, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(prepared, tmp_path, architecture, kind, number, completed):
    killed(prepared, tmp_path / "resumed" / "work", architecture, kind, number)
    resumed, _ = trained(prepared, tmp_path / "resumed", small_job(architecture))
    whole, _ = trained(prepared, tmp_path / "whole", small_job(architecture))
    outs = [tmp_path / name / "out" for name in ("resumed", "whole")]
    first, second = (torch.load(out / "model.pt", weights_only=True)["state"] for out in outs)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert resumed.resumed_epochs == completed
    assert whole.resumed_epochs == 0
    assert resumed.thresholds == whole.thresholds
    histories = [np.loadtxt(out / "history.csv", delimiter=",", skiprows=1)[:, :4] for out in outs]
    np.testing.assert_array_equal(*histories)


def test_a_checkpoint_of_other_settings_or_a_broken_one_is_not_resumed(prepared, tmp_path, caplog):
    trained(prepared, tmp_path, small_job(max_epochs=1))
    shutil.rmtree(tmp_path / "out")
    with caplog.at_level(logging.INFO):
        summary, out = trained(prepared, tmp_path, small_job(max_epochs=2))
    assert summary.resumed_epochs == 0
    assert "other settings or data" in caplog.text
    shutil.rmtree(out)
    again, out = trained(prepared, tmp_path, small_job(max_epochs=2))
    assert again.resumed_epochs == 2  # complete: nothing is trained again
    assert again.validation_loss == summary.validation_loss
    shutil.rmtree(out)
    (tmp_path / "work" / CHECKPOINT).write_bytes(b"PK\x03\x04 half a checkpoint")
    summary, _ = trained(prepared, tmp_path, small_job(max_epochs=2))
    assert summary.resumed_epochs == 0
    assert "starts afresh" in caplog.text


def test_a_stop_between_epochs_is_resumed_to_the_same_network(prepared, tmp_path):
    job = small_job(max_epochs=3)
    told = []

    def stop_after_first(epoch, epochs):
        told.append((epoch.epoch, epochs))
        return len(told) == 1

    for out in ("stopped", "resumed", "reference"):
        (tmp_path / out).mkdir()
    with pytest.raises(Interrupted, match="after epoch 1"):
        train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path / "stopped", after_epoch=stop_after_first)
    assert list((tmp_path / "stopped").iterdir()) == []
    train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path / "resumed", after_epoch=stop_after_first)
    assert told == [(0, 3), (1, 3), (2, 3)]
    train(prepared, job, TARGET_NAMES, tmp_path / "work2", tmp_path / "reference")
    resumed, reference = (load_classifier(tmp_path / name) for name in ("resumed", "reference"))
    tracks = prepared.split("test").features[:500]
    assert np.array_equal(resumed.predict(tracks), reference.predict(tracks))
