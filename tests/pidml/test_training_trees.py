import csv
import logging
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import small_training
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml import tracks
from pidml.errors import Interrupted, ToolMissing, TrainingError
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import load_classifier, train
from pidml.training.fit import fingerprint
from pidml.training.fitters import fitter
from pidml.training.labels import class_indices
from pidml.training.objective import loss
from pidml.training.record import CHECKPOINT
from pidml.training.weights import sample_weights

ARCHITECTURES = ("boosted-trees", "random-forest")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (5000, 4000, 2000))


def small(architecture, model=None, seed=42, **training):
    job = small_job(architecture, **training)
    return job.model_copy(update={"model": job.model.model_copy(update=model or {}), "seed": seed})


def trained(prepared, folder, job, species=TARGET_NAMES, **options):
    out = folder / "out"
    out.mkdir(parents=True)
    return train(prepared, job, species, folder / "work", out, **options), out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_trees_learn_are_calibrated_and_write_what_networks_write(prepared, tmp_path, architecture, objective):
    summary, out = trained(prepared, tmp_path, small(architecture, objective=objective))
    with (out / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]  # forty trees or rounds, ten an epoch
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"])
    assert summary.calibration.loss_before == pytest.approx(summary.validation_loss, rel=1e-4)
    assert summary.calibration.loss_after < summary.calibration.loss_before
    assert summary.parameters > 1000
    certainty = load_classifier(out).predict(prepared.split("test").features)
    assert certainty.dtype == np.float32
    assert ((certainty >= 0) & (certainty <= 1)).all()
    assert summary.validation_f1["pion"] > 0.97
    assert summary.validation_f1["kaon"] > 0.7
    for position, target in enumerate(TARGETS):
        share = np.mean(prepared.split("test").pdg == target.pdg)
        assert certainty[:, position].mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_seed_gives_a_model(prepared, tmp_path, architecture):
    features = prepared.split("test").features

    def predicted(name, seed, threads):
        torch.set_num_threads(threads)
        try:
            job = small(architecture, {"rounds": 10, "trees": 10}, seed)
            return load_classifier(trained(prepared, tmp_path / name, job)[1]).predict(features)
        finally:
            torch.set_num_threads(1)

    first = predicted("a", 1, 1)
    np.testing.assert_array_equal(predicted("b", 1, 1), first)
    assert np.abs(predicted("c", 2, 1) - first).max() > 0.01
    if architecture == "random-forest":
        np.testing.assert_array_equal(predicted("d", 1, 2), first)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_killed_and_resumed_equals_uninterrupted(prepared, tmp_path, architecture):
    work, lost = tmp_path / "resumed" / "work", tmp_path / "lost"
    command = [sys.executable, small_training.__file__, prepared.path, work, lost, architecture, "block", "1"]
    environment = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not any(lost.iterdir())
    resumed, _ = trained(prepared, tmp_path / "resumed", small(architecture))
    whole, _ = trained(prepared, tmp_path / "whole", small(architecture))
    assert (resumed.resumed_epochs, whole.resumed_epochs) == (2, 0)
    states = [
        torch.load(tmp_path / name / "out" / "model.pt", weights_only=True)["state"] for name in ("resumed", "whole")
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert resumed.thresholds == whole.thresholds


def test_a_stop_between_epochs_is_resumed(prepared, tmp_path):
    told = []

    def stop_after_second(epoch, epochs):
        told.append((epoch.epoch, epochs))
        return len(told) == 2

    job = small("boosted-trees", {"rounds": 35})
    with pytest.raises(Interrupted, match="after epoch 2"):
        trained(prepared, tmp_path / "stopped", job, after_epoch=stop_after_second)
    assert not any((tmp_path / "stopped" / "out").iterdir())
    (tmp_path / "stopped" / "out").rmdir()
    summary, out = trained(prepared, tmp_path / "stopped", job, after_epoch=stop_after_second)
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert summary.resumed_epochs == 2
    network = load_classifier(out).module.parts[0].network
    assert len(network.forest().roots) == 35 * 6


def test_growing_ends_early_and_keeps_the_best(prepared, tmp_path):
    job = small("boosted-trees", {"rounds": 2000, "shrinkage": 1.0, "depth": 6}, patience=2)
    summary, out = trained(prepared, tmp_path, job)
    assert summary.epochs == summary.best_epoch + 3 < 200
    forest = load_classifier(out).module.parts[0].network.forest()
    assert len(forest.roots) == (summary.best_epoch + 1) * 10 * 6


def test_a_broken_checkpoint_is_not_resumed(prepared, tmp_path, caplog):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / CHECKPOINT).write_bytes(b"PK\x03\x04 half a checkpoint")
    with caplog.at_level(logging.INFO):
        summary, _ = trained(prepared, tmp_path, small("boosted-trees", {"rounds": 10}))
    assert summary.resumed_epochs == 0
    assert "starts afresh" in caplog.text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_species_alone_and_weighted_patterns(prepared, tmp_path, architecture):
    job = small(architecture, {"rounds": 20, "trees": 20}, undersample=True)
    summary, out = trained(prepared, tmp_path, job, species=["proton"])
    assert load_classifier(out).predict(prepared.split("test").features[:10]).shape == (10, 1)
    assert summary.validation_f1["proton"] > 0.7


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_balanced_classes_take_certainty_from_the_rare_back(prepared, tmp_path, architecture):
    """With weights kaons are asked for more often than they are there; calibration undoes it."""
    offsets = {}
    for weights in ("none", "balanced"):
        job = small(architecture, {"rounds": 20, "trees": 20}, class_weights=weights, pattern_weights=weights)
        summary, _ = trained(prepared, tmp_path / weights, job)
        offsets[weights] = summary.calibration.offset[TARGET_NAMES.index("kaon")]
    assert offsets["balanced"] < offsets["none"] - 0.5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_losses_are_means_with_the_weights(prepared, tmp_path, architecture, objective):
    job = small(architecture, {"rounds": 10, "trees": 10}, class_weights="balanced", pattern_weights="balanced")
    job = job.model_copy(update={"training": job.training.model_copy(update={"objective": objective})})
    found = fitter(architecture)(
        prepared, job, TARGET_NAMES, tmp_path / "work", pool_rows=1, after_epoch=None, experimental=None, derived=(),
        memory_bytes=None, resident_bytes=None,
    )  # fmt: skip
    (row,), table = found.record.rows, sample_weights(prepared, job.training, TARGET_NAMES)
    for name, told in (("train", row.train_loss), ("validation", row.val_loss)):
        sample = prepared.split(name)
        classes = class_indices(np.asarray(sample.pdg), TARGET_NAMES)
        weights = table[classes, tracks.feature_pattern(np.asarray(sample.features), prepared.features)]
        with torch.inference_mode():
            logits = found.network(torch.from_numpy(prepared.scaling.apply(np.asarray(sample.features))))
            each = [float(loss(objective, logits[[at]], torch.from_numpy(classes[[at]]))) for at in range(len(classes))]
        assert told == pytest.approx(np.average(each, weights=weights), rel=1e-4)
        assert abs(np.mean(each) / told - 1) > 0.05  # without the weights it is another loss


@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_the_recorded_loss_of_large_logits_is_that_of_the_certainties(prepared, tmp_path, objective):
    """Deep trees at full steps are wrong by logits of hundreds; XGBoost's metric stops at 1e-16."""
    job = small("boosted-trees", {"rounds": 20, "depth": 16, "shrinkage": 1.0}, objective=objective)
    summary, _ = trained(prepared, tmp_path, job)
    assert summary.calibration.loss_before == pytest.approx(summary.validation_loss, rel=1e-4)


def test_too_few_tracks_for_a_round_are_refused_with_numbers(prepared, tmp_path):
    with pytest.raises(TrainingError, match=r"model\.track_fraction: 0\.001 of 5,000 .* leaves 5 tracks") as error:
        trained(prepared, tmp_path, small("boosted-trees", {"track_fraction": 0.001}))
    assert "raise model.track_fraction to 0.004 or more" in str(error.value)
    trained(prepared, tmp_path / "enough", small("boosted-trees", {"track_fraction": 0.004, "rounds": 10}))


def test_what_xgboost_refuses_is_named_in_a_line(prepared, tmp_path):
    job = small("boosted-trees", {"shrinkage": -1.0})  # a specification would not let this through
    with pytest.raises(TrainingError, match=r"XGBoost cannot grow boosted trees: .*-1") as error:
        trained(prepared, tmp_path, job)
    assert not any(word in str(error.value) for word in ("Stack trace", "/workspace", "libxgboost"))


def test_settings_that_trees_do_not_read_change_nothing(prepared, tmp_path):
    job = small("boosted-trees", {"rounds": 20})
    trained(prepared, tmp_path, job)
    other = {"learning_rate": 0.5, "batch_size": 7, "max_epochs": 1, "precision": "bf16-mixed", "devices": 2}
    changed = small("boosted-trees", {"rounds": 20, "hidden": (7,)}, **other)
    assert fingerprint(prepared, changed, TARGET_NAMES) == fingerprint(prepared, job, TARGET_NAMES)
    (tmp_path / "again").mkdir()
    assert train(prepared, changed, TARGET_NAMES, tmp_path / "work", tmp_path / "again").resumed_epochs == 2
    assert fingerprint(prepared, small("boosted-trees", {"rounds": 20}, patience=1), TARGET_NAMES) != fingerprint(
        prepared, job, TARGET_NAMES
    )


def test_a_forest_uses_part_of_a_large_sample(prepared, tmp_path):
    few, _ = trained(prepared, tmp_path / "few", small("random-forest", {"tree_tracks": 500, "trees": 20}))
    all_of_them, _ = trained(prepared, tmp_path / "all", small("random-forest", {"trees": 20}))
    assert few.parameters < all_of_them.parameters
    assert few.validation_loss > all_of_them.validation_loss


@pytest.mark.parametrize(
    ("architecture", "module", "package"),
    [("boosted-trees", "xgboost", "xgboost"), ("random-forest", "sklearn.ensemble", "scikit-learn")],
)
def test_an_absent_library_is_named(prepared, tmp_path, monkeypatch, architecture, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ToolMissing, match=rf"{architecture}.*{package}.*not installed") as error:
        trained(prepared, tmp_path, small(architecture))
    assert "pidml[boosting]" in str(error.value)
