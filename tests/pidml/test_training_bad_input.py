"""Data that teaches little: constant or absent features, one missing pattern, one class. Named errors, or networks."""

import json

import numpy as np
import pytest
import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml import tracks
from pidml.data.prepared import PreparedDataset
from pidml.data.statistics import Moments, scaling_from
from pidml.errors import Diverged, SpeciesAbsent
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train
from pidml.training.module import TrainingModule
from pidml.training.record import CHECKPOINT

torch.set_num_threads(1)
ARCHITECTURES = ["masked-mlp", "attention", "ensemble", "mlp"]
NAMES = list(tracks.FEATURES)


def changed(folder, change, sizes=(4000, 2000, 1000)):
    """Write a prepared set whose features went through ``change``, scaled as preparation scales them."""
    prepared = write_prepared(folder, sizes)
    for name in ("train", "validation", "test"):
        features = np.load(folder / name / "features.npy")
        pdg = np.load(folder / name / "pdg.npy")
        features, pdg = change(features, pdg)
        np.save(folder / name / "features.npy", features)
        np.save(folder / name / "pdg.npy", pdg)
    train_features = np.load(folder / "train" / "features.npy")
    columns = [NAMES.index(name) for name in tracks.STANDARDISED]
    scaling, _ = scaling_from(Moments.of(train_features[:, columns]), NAMES, list(tracks.STANDARDISED))
    (folder / "scaling.json").write_text(json.dumps(scaling.as_o2()))
    return PreparedDataset.open(prepared.path)


def trained(prepared, folder, job):
    (folder / "out").mkdir()
    summary = train(prepared, job, TARGET_NAMES, folder / "work", folder / "out")
    return summary, load_classifier(folder / "out")


def set_feature(name, value):
    def change(features, pdg):
        features[:, NAMES.index(name)] = value
        return features, pdg

    return change


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "value"),
    [("fDcaXY", np.nan), ("fBeta", np.nan), ("fTPCSignal", 50.0)],
    ids=["absent", "no-tof", "constant"],
)
def test_a_feature_that_tells_nothing_is_harmless(tmp_path, architecture, name, value):
    prepared = changed(tmp_path / "data", set_feature(name, value))
    summary, classifier = trained(prepared, tmp_path, small_job(architecture, max_epochs=3, learning_rate=0.02))
    assert np.isfinite(summary.validation_loss)
    assert summary.validation_f1["pion"] > 0.8
    scores = classifier.predict(prepared.split("test").features)
    assert np.isfinite(scores).all()
    # A value where none was in training: finite as well.
    ordinary = write_prepared(tmp_path / "ordinary", (10, 10, 500)).split("test").features
    assert np.isfinite(classifier.predict(ordinary)).all()


@pytest.mark.parametrize("pattern", [0, 3], ids=["complete", "tpc-only"])
@pytest.mark.parametrize(
    "settings", [{}, {"undersample": True}, {"class_weights": "balanced", "pattern_weights": "balanced"}],
    ids=["plain", "undersample", "weights"],
)  # fmt: skip
def test_one_missing_pattern_only_trains(tmp_path, pattern, settings):
    def keep(features, pdg):
        rows = tracks.feature_pattern(features, NAMES) == pattern
        return features[rows], pdg[rows]

    prepared = changed(tmp_path / "data", keep, (16_000, 8000, 2000))
    summary, classifier = trained(prepared, tmp_path, small_job(max_epochs=8, **settings))
    assert summary.validation_f1["pion"] > 0.8
    ordinary = write_prepared(tmp_path / "ordinary", (10, 10, 500)).split("test").features
    assert np.isfinite(classifier.predict(ordinary)).all()  # patterns that it has never seen


def test_a_single_class_is_a_named_error(tmp_path):
    def only_pions(features, pdg):
        return features, np.full_like(pdg, 211)

    prepared = changed(tmp_path / "data", only_pions, (500, 300, 10))
    with pytest.raises(SpeciesAbsent, match="all 500 tracks of the train sample are pion"):
        trained(prepared, tmp_path, small_job())


@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_no_other_particles_is_no_error_with_balanced_classes(tmp_path, objective):
    def targets_only(features, pdg):
        rows = np.isin(np.abs(pdg), (211, 321, 2212))
        return features[rows], pdg[rows]

    prepared = changed(tmp_path / "data", targets_only)
    summary, _ = trained(prepared, tmp_path, small_job(objective=objective, class_weights="balanced", max_epochs=3))
    assert np.isfinite(summary.validation_loss)
    assert summary.validation_f1["pion"] > 0.8


def test_weights_that_diverge_keep_the_last_good_checkpoint_and_it_is_resumed(tmp_path):
    """A gradient step that is far too large in the second epoch: the loss is NaN, epoch 0 stays."""
    prepared = write_prepared(tmp_path / "data", (4000, 2000, 10))
    original = TrainingModule.training_step
    (tmp_path / "out").mkdir()

    def step(self, batch, index):
        if self.current_epoch == 1:
            with torch.no_grad():
                self.network.output.weight.fill_(torch.inf)
        return original(self, batch, index)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TrainingModule, "training_step", step)
        with pytest.raises(Diverged, match="after epoch 0 is kept"):
            train(prepared, small_job(), TARGET_NAMES, tmp_path / "work", tmp_path / "out")
    kept = torch.load(tmp_path / "work" / CHECKPOINT, weights_only=True)
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())
    assert not any((tmp_path / "out").iterdir())
    assert train(prepared, small_job(), TARGET_NAMES, tmp_path / "work", tmp_path / "out").resumed_epochs == 1
