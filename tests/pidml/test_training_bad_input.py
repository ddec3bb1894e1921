"""Data that teaches little: constant or absent features, missing patterns never seen, one class.

Every architecture answers with a named error, or uses what it was taught and nothing else, and says what it was not.
"""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from support.prepared_data import write_prepared
from support.small_training import adapting, small_job

from pidml import tracks
from pidml.data.prepared import PreparedDataset
from pidml.data.statistics import Moments, scaling_from
from pidml.errors import Diverged, NoLabels, SpeciesAbsent
from pidml.export import Bundle, export_bundle
from pidml.models import Inputs, build
from pidml.species import TARGET_NAMES, by_name
from pidml.training import load_classifier, random_forest, train
from pidml.training.boosting import _Boosting
from pidml.training.module import TrainingModule
from pidml.training.record import CHECKPOINT

torch.set_num_threads(1)
NETWORKS = ["masked-mlp", "attention", "ensemble", "mlp"]
TREES = ["boosted-trees", "random-forest"]
ADAPTED = ["masked-mlp+dann", "masked-mlp+cdan"]
ALL = [*NETWORKS, *TREES, *ADAPTED]
NAMES = list(tracks.FEATURES)
SIZES = (4000, 2000, 1000)


def changed(folder, change, sizes=SIZES, **options):
    """Write a prepared set whose features went through ``change``, scaled as preparation scales them."""
    prepared = write_prepared(folder, sizes, **options)
    for name in ("train", "validation", "test"):
        features = np.load(folder / name / "features.npy")
        pdg = np.load(folder / name / "pdg.npy")
        features, pdg = change(features, pdg)
        np.save(folder / name / "features.npy", features)
        np.save(folder / name / "pdg.npy", pdg)
    train_features = np.load(folder / "train" / "features.npy")
    columns = [NAMES.index(name) for name in tracks.STANDARDISED]
    scaling = scaling_from(Moments.of(train_features[:, columns]), NAMES, list(tracks.STANDARDISED))
    (folder / "scaling.json").write_text(json.dumps(scaling.as_o2()))
    return PreparedDataset.open(prepared.path)


def trained(folder, method, change, sizes=SIZES, **training):
    """Train an architecture (with ``+`` and a kind of adaptation) on data that went through ``change``."""
    prepared = changed(folder / "data", change, sizes)
    architecture, _, adaptation = method.partition("+")
    job, experimental = small_job(architecture, **{"max_epochs": 3, "learning_rate": 0.02} | training), None
    if adaptation:
        job = adapting(job, adaptation)
        experimental = changed(folder / "experimental", change, sizes, seed=8, simulation=False)
    (folder / "out").mkdir()
    summary = train(prepared, job, TARGET_NAMES, folder / "work", folder / "out", experimental=experimental)
    return prepared, summary, load_classifier(folder / "out")


def set_features(**values):
    def change(features, pdg):
        for name, value in values.items():
            features[:, NAMES.index(name)] = value
        return features, pdg

    return change


def only_pattern(*patterns):
    def change(features, pdg):
        rows = np.isin(tracks.feature_pattern(features, NAMES), patterns)
        return features[rows], pdg[rows]

    return change


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """Tracks as they are, which no network here was trained on."""
    return write_prepared(tmp_path_factory.mktemp("ordinary") / "set", (10, 10, 4000), seed=9).split("test")


def assert_pions_are_told(pdg, scores, at_least):
    assert np.isfinite(scores).all()
    assert roc_auc_score(pdg == 211, scores[:, TARGET_NAMES.index("pion")]) > at_least


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(
    "change",
    [
        {"fTOFSignal": np.nan, "fBeta": np.nan},
        {"fTPCSignal": 50.0},
        {"fTRDPattern": np.nan, "fDcaXY": np.nan, "fAlpha": 0.5, "fX": 0.0},
    ],
    ids=["no-tof", "constant", "several"],
)
def test_what_training_never_showed_is_ignored_and_said(tmp_path, caplog, ordinary, method, change):
    _, summary, classifier = trained(tmp_path, method, set_features(**change))
    assert np.isfinite(summary.validation_loss)
    for name in change:
        (line,) = [line for line in caplog.messages if name in line]
        assert "networks learn nothing" in line
        assert "ignore" in line
    features = np.array(ordinary.features)
    scores = classifier.predict(features)
    as_in_training, _ = set_features(**change)(features.copy(), None)
    np.testing.assert_array_equal(scores, classifier.predict(as_in_training))
    assert_pions_are_told(ordinary.pdg, scores, 0.85)


@pytest.mark.parametrize("method", ALL)
def test_one_missing_pattern_only_answers_tracks_with_more_detectors(tmp_path, caplog, ordinary, method):
    _, summary, classifier = trained(tmp_path, method, only_pattern(3), (8000, 4000, 1000))
    assert summary.validation_f1["pion"] > 0.8
    features = np.array(ordinary.features)
    hidden, _ = set_features(fTOFSignal=np.nan, fBeta=np.nan, fTRDPattern=np.nan)(features.copy(), None)
    scores = classifier.predict(features)
    np.testing.assert_array_equal(scores, classifier.predict(hidden))
    assert_pions_are_told(ordinary.pdg, scores, 0.85)
    assert {f"has {name} (" in caplog.text for name in ("TOF", "TRD")} == {True}


@pytest.mark.parametrize("method", ALL)
def test_complete_tracks_only_are_said_to_leave_the_others_unanswered(tmp_path, caplog, ordinary, method):
    prepared, summary, classifier = trained(tmp_path, method, only_pattern(0), (16_000, 8000, 4000))
    assert summary.validation_f1["pion"] > 0.8
    assert [classifier.taught.answered_as(pattern) for pattern in range(4)] == [0, None, None, None]
    assert sum("extrapolations that mean little" in line for line in caplog.messages) == 3
    complete = prepared.split("test")
    assert_pions_are_told(complete.pdg, classifier.predict(complete.features), 0.85)
    assert np.isfinite(classifier.predict(ordinary.features)).all()


@pytest.mark.parametrize("method", ALL)
def test_a_pattern_between_is_answered_with_fewer_detectors(tmp_path, ordinary, method):
    """TOF and TRD were both there or both missing: a track with one of them is answered by the TPC."""
    prepared, _, classifier = trained(tmp_path, method, only_pattern(0, 3), (8000, 4000, 1000))
    features = np.array(ordinary.features)
    pattern = tracks.feature_pattern(features, NAMES)
    hidden, _ = set_features(fTOFSignal=np.nan, fBeta=np.nan, fTRDPattern=np.nan)(features.copy(), None)
    scores, without = classifier.predict(features), classifier.predict(hidden)
    between = np.isin(pattern, (1, 2))
    np.testing.assert_array_equal(scores[between], without[between])
    assert (scores[pattern == 0] != without[pattern == 0]).any()
    # The exported networks do the same.
    export_bundle([tmp_path / "out"], prepared, small_job(method.partition("+")[0]), tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle", threads=1)
    np.testing.assert_allclose(bundle.predict(features), scores, atol=1e-5)
    assert bundle.taught == classifier.taught


@pytest.mark.parametrize(
    "settings", [{"undersample": True}, {"class_weights": "balanced", "pattern_weights": "balanced"}],
    ids=["undersample", "weights"],
)  # fmt: skip
@pytest.mark.parametrize("pattern", [0, 3], ids=["complete", "tpc-only"])
def test_balance_among_one_missing_pattern_changes_nothing_for_it(tmp_path, pattern, settings):
    _, summary, _ = trained(
        tmp_path, "masked-mlp", only_pattern(pattern), (16_000, 8000, 2000), max_epochs=8, **settings
    )
    assert summary.validation_f1["pion"] > 0.8


@pytest.mark.parametrize("learned", [(0,), (3,), (0, 3), (1, 3)])
def test_no_perceptron_of_an_ensemble_answers_untrained(tmp_path, ordinary, learned):
    """Features reach the network itself here, without what is hidden before it."""
    _, _, classifier = trained(tmp_path, "ensemble", only_pattern(*learned), (8000, 4000, 1000))
    network = classifier.module.parts[0].network
    start = build(small_job("ensemble").model, Inputs.of(classifier.scaling), 6)
    assert all(
        not torch.equal(after[expert], before[expert])
        for before, after in zip(start.weights, network.weights, strict=True)
        for expert in range(4)
    )
    features = torch.from_numpy(classifier.scaling.apply(np.array(ordinary.features)))
    encoded = network.encode(features)
    chosen = encoded[:, network.columns.size :]
    for pattern in set(range(4)) - set(learned):
        near = classifier.taught.nearest(pattern)
        lost = [n for flag, names in tracks.DETECTOR_COLUMNS.items() if near & flag for n in names if n in NAMES]
        rows = chosen.argmax(dim=1) == pattern  # bits of TOF and TRD number the perceptrons, too
        assert rows.any()
        as_near, _ = set_features(**dict.fromkeys(lost, torch.nan))(features[rows].clone(), None)
        as_near = network.encode(as_near)
        as_near[:, network.columns.size :] = torch.eye(4)[near]
        torch.testing.assert_close(network.body(encoded[rows]), network.body(as_near), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ALL)
def test_labels_that_teach_nothing_are_named_errors(tmp_path, method):
    def labels(value):
        return lambda features, pdg: (features, np.full_like(pdg, value))

    def without(name):
        return lambda features, pdg: (features, np.where(pdg == by_name(name).pdg, 13, pdg).astype(np.int32))

    with pytest.raises(SpeciesAbsent, match="all 500 tracks of the train sample are pion"):
        trained(tmp_path / "one", method, labels(211), (500, 300, 10))
    with pytest.raises(SpeciesAbsent, match="no antikaon among the 500 tracks of the train sample"):
        trained(tmp_path / "none", method, without("antikaon"), (500, 300, 10))
    prepared = write_prepared(tmp_path / "data", (500, 300, 10), simulation=False)
    architecture, _, adaptation = method.partition("+")
    job = adapting(small_job(architecture), adaptation) if adaptation else small_job(architecture)
    with pytest.raises(NoLabels, match="experimental data has no labels"):
        train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path, experimental=prepared)


@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_no_other_particles_is_no_error_with_balanced_classes(tmp_path, objective):
    def targets_only(features, pdg):
        rows = np.isin(np.abs(pdg), (211, 321, 2212))
        return features[rows], pdg[rows]

    _, summary, _ = trained(tmp_path, "masked-mlp", targets_only, objective=objective, class_weights="balanced")
    assert np.isfinite(summary.validation_loss)
    assert summary.validation_f1["pion"] > 0.8


def diverging(method, monkeypatch):
    """Let the loss become NaN in the second epoch."""
    if method == "boosted-trees":
        original = _Boosting.losses
        later = lambda self: (0.1, np.nan) if self.booster.num_boosted_rounds() > 10 else original(self)  # noqa: E731
        monkeypatch.setattr(_Boosting, "losses", later)
    elif method == "random-forest":
        own = random_forest._RandomForest.losses
        later = lambda self: (np.nan, 0.1) if len(self.blocks) > 1 else own(self)  # noqa: E731
        monkeypatch.setattr(random_forest._RandomForest, "losses", later)
    else:
        step = TrainingModule.training_step

        def broken(self, batch, index):
            if self.current_epoch == 1:
                with torch.no_grad():
                    part = self.adversary or self.network
                    part.output.weight.fill_(torch.inf)
            return step(self, batch, index)

        monkeypatch.setattr(TrainingModule, "training_step", broken)


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ("masked-mlp", r"lower training\.learning_rate \(now 0\.02\), or set training\.gradient_clip"),
        ("attention", r"lower training\.learning_rate"),
        ("masked-mlp+dann", r"or lower adaptation\.coefficient \(now 1\), or set"),
        ("masked-mlp+cdan", r"or lower adaptation\.coefficient \(now 1\), or set"),
        ("boosted-trees", r"lower model\.shrinkage"),
        ("random-forest", "impossible values among the features"),
    ],
)
def test_weights_that_diverge_keep_the_last_good_checkpoint_and_it_is_resumed(tmp_path, method, remedy):
    with pytest.MonkeyPatch.context() as patched:
        diverging(method, patched)
        with pytest.raises(Diverged, match=r"nan.* in epoch 1.*; the checkpoint after epoch 0 is kept") as error:
            trained(tmp_path, method, lambda *arrays: arrays)
    assert re.search(remedy, error.value.hint)
    if method not in TREES:
        kept = torch.load(tmp_path / "work" / CHECKPOINT, weights_only=True)
        assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())
    assert not any((tmp_path / "out").iterdir())
    for name in ("out", "data", "experimental"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    assert trained(tmp_path, method, lambda *arrays: arrays)[1].resumed_epochs == 1


@pytest.mark.parametrize("method", ["masked-mlp", "boosted-trees"])
def test_a_loss_that_is_nan_at_once_does_not_speak_of_a_checkpoint(tmp_path, monkeypatch, method):
    monkeypatch.setattr(_Boosting, "losses", lambda self: (np.nan, np.nan))
    monkeypatch.setattr(TrainingModule, "training_step", lambda self, *_: self.network.output.weight.sum() * torch.nan)
    with pytest.raises(Diverged, match=r"in epoch 0.*; no epoch was completed") as error:
        trained(tmp_path, method, lambda *arrays: arrays)
    assert "last.ckpt" not in str(error.value)
    assert not (tmp_path / "work" / CHECKPOINT).exists()
