"""Balanced classes and missing patterns: by weights in the loss, and by what an epoch draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml import tracks
from pidml.data.taught import Taught, hardly_seen
from pidml.models import Inputs, build
from pidml.spec.model_sections import Model, Training
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import load_classifier, train
from pidml.training.batches import Source
from pidml.training.objective import loss
from pidml.training.plan import Plan
from pidml.training.room import Room
from pidml.training.undersampling import Undersampling, undersampling_notices
from pidml.training.weights import balanced_weights, group_counts, sample_weights

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (70_000, 20_000, 20_000))


@settings(max_examples=100, deadline=None)
@given(arrays(np.int64, (7, 4), elements=st.integers(1, 10_000)), st.booleans(), st.booleans())
def test_balanced_weights_equalise_sums_and_keep_the_mean(counts, classes, patterns):
    weighted = counts * balanced_weights(counts, classes=classes, patterns=patterns).astype(np.float64)
    assert weighted.sum() == pytest.approx(counts.sum(), rel=1e-5)
    if patterns:
        np.testing.assert_allclose(weighted.sum(axis=0), counts.sum() / 4, rtol=1e-4)
    if classes:
        np.testing.assert_allclose(weighted.sum(axis=1), counts.sum() / 7, rtol=1e-4 if not patterns else 0.02)


def test_what_does_not_occur_takes_no_part():
    counts = np.array([[100, 0, 50, 0], [0, 0, 0, 0], [10, 0, 5, 0]])
    weights = balanced_weights(counts, classes=True, patterns=True)
    assert np.isfinite(weights).all()
    np.testing.assert_allclose((counts * weights).sum(axis=1), [82.5, 0, 82.5], rtol=1e-5)
    np.testing.assert_allclose((counts * weights).sum(axis=0), [82.5, 0, 82.5, 0], rtol=1e-5)


@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_a_weight_counts_like_copies_of_a_track(objective):
    generator = torch.Generator().manual_seed(1)
    logits, classes = torch.randn(4, 7, generator=generator), torch.tensor([0, 3, 6, 6])
    logits = logits if objective == "softmax" else logits[:, :6]
    copies = torch.tensor([0, 1, 1, 1, 2, 2, 3, 3])
    weights = torch.tensor([1.0, 3.0, 2.0, 2.0]) / 2
    weighted, copied = loss(objective, logits, classes, weights), loss(objective, logits[copies], classes[copies])
    torch.testing.assert_close(weighted, copied)


@pytest.mark.parametrize("resident", [2**40, 0], ids=["resident", "streamed"])
def test_batches_carry_the_weights_of_their_tracks(prepared, resident):
    weights = sample_weights(prepared, Training(class_weights="balanced", pattern_weights="balanced"), TARGET_NAMES)
    network = build(Model(architecture="masked-mlp"), Inputs.of(prepared.scaling), 6)
    source = Source(
        prepared, TARGET_NAMES, network.encode, [Room(torch.device("cpu"), resident)], 65_536, weights=weights
    )
    parts = list(source.batches("train", Plan(1000, 5, lambda: 0)))
    classes, given = torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts])
    assert given.mean().item() == pytest.approx(1, rel=1e-4)
    sums = np.bincount(classes.numpy(), given.numpy())
    np.testing.assert_allclose(sums, len(classes) / 7, rtol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.int64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.integers(0, 40)).filter(lambda c: c.any()),
    st.integers(0, 5),
)
def test_epochs_take_turns_through_all_tracks_of_every_pattern(counts, seed):
    undersampling = Undersampling(counts, seed)
    patterns = [np.repeat(np.arange(4, dtype=np.uint8), row) for row in counts]
    used = [np.zeros(len(each), int) for each in patterns]
    totals = counts.sum(axis=0)
    level = undersampling.each.max()
    assert level == min(totals[~hardly_seen(totals)])
    epochs = int(-(-totals.max() // level))
    for epoch in range(epochs):
        spans, taken = undersampling.spans(epoch), np.zeros(4, int)
        for block, each in enumerate(patterns):
            rows = undersampling.chosen(block, each, spans)
            assert len(set(rows)) == len(rows)
            used[block][rows] += 1
            taken += np.bincount(each[rows], minlength=4)
        assert (taken == np.minimum(totals, level)).all()
        assert taken.sum() == undersampling.rows
    for pattern in np.flatnonzero(totals):
        times = np.concatenate([used[block][each == pattern] for block, each in enumerate(patterns)])
        assert times.min() >= 1
        assert times.max() - times.min() <= 1


def test_a_handful_of_tracks_does_not_make_an_epoch_of_a_step():
    undersampling = Undersampling(np.array([[6_000_000, 5, 3_000_000, 1_000_000]]), 1)
    assert undersampling.each.tolist() == [1_000_000, 5, 1_000_000, 1_000_000]
    assert undersampling.rows == 3_000_005


def notices(patterns, **training):
    return list(undersampling_notices(Taught(tracks.FEATURES, patterns, {}), Training(**training)))


def test_epochs_that_take_little_of_the_sample_are_told_with_numbers():
    starved = (9_000_000, 400, 600_000, 399_600)
    (line,) = notices(starved, undersample=True, batch_size=512)
    assert "only 400 of 10,000,000 training tracks are no-tof" in line
    assert "an epoch takes 1,600 tracks in 3 steps" in line
    assert "training.pattern_weights: balanced" in line
    assert not notices(starved)
    assert not notices((9_000_000, 5, 600_000, 400_000), undersample=True)  # the five do not decide
    assert not notices((1700, 500, 1500, 6300), undersample=True)


def test_training_says_that_undersampling_starves_it(tmp_path, caplog):
    few = write_prepared(tmp_path / "set", (12_000, 3000, 10))
    for name in ("train", "validation"):
        path = few.path / name / "features.npy"
        features = np.load(path)
        rows = tracks.feature_pattern(features, tracks.FEATURES) == 0
        rows[np.flatnonzero(rows)[:110]] = False  # complete tracks that stay so
        features[rows, tracks.FEATURES.index("fTRDPattern")] = np.nan
        np.save(path, features)
    (tmp_path / "out").mkdir()
    train(few, small_job(undersample=True, max_epochs=1), TARGET_NAMES, tmp_path / "work", tmp_path / "out")
    (line,) = [each for each in caplog.messages if "undersample" in each]
    assert "only 110 of 12,000 training tracks are complete" in line


@pytest.mark.parametrize("settings", [{"pattern_weights": "balanced"}, {"undersample": True}])
def test_a_handful_of_tracks_does_not_outweigh_the_others(tmp_path, settings):
    data = write_prepared(tmp_path / "set", (9000, 10, 10))
    features = np.load(data.path / "train" / "features.npy")
    features[5:, tracks.FEATURES.index("fTRDPattern")] = np.nan
    features[:5, [tracks.FEATURES.index(name) for name in ("fTRDPattern", "fBeta", "fTOFSignal")]] = 1.0
    np.save(data.path / "train" / "features.npy", features)
    weights = sample_weights(data, Training(**settings), TARGET_NAMES, draws=False)
    assert weights[:, 0].tolist() == [1.0] * 7
    counts = group_counts(data.split("train"), TARGET_NAMES, data.features)
    assert (counts * weights).sum(axis=0)[2:] == pytest.approx(8995 / 2, rel=1e-3)


def test_undersampling_and_pattern_weights_exclude_each_other():
    with pytest.raises(ValidationError, match="both balance missing patterns"):
        Training(undersample=True, pattern_weights="balanced")


def test_class_weights_beside_undersampling_count_what_epochs_hold(prepared):
    weights = sample_weights(prepared, Training(class_weights="balanced", undersample=True), TARGET_NAMES)
    counts = group_counts(prepared.split("train"), TARGET_NAMES, prepared.features)
    drawn = counts / counts.sum(axis=0)
    np.testing.assert_allclose((drawn * weights).sum(axis=1), 4 / 7, rtol=1e-5)


def test_undersampling_by_weights_makes_missing_patterns_count_alike(prepared):
    weights = sample_weights(prepared, Training(undersample=True), TARGET_NAMES, draws=False)
    counts = group_counts(prepared.split("train"), TARGET_NAMES, prepared.features)
    np.testing.assert_allclose((counts * weights).sum(axis=0), counts.sum() / 4, rtol=1e-5)


def calibration_error(truth, scores, bins=20):
    index = np.minimum((scores * bins).astype(int), bins - 1)
    return sum(
        abs(truth[index == each].mean() - scores[index == each].mean()) * (index == each).mean()
        for each in range(bins)
        if (index == each).any()
    )


@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_weights_favour_the_rare_and_certainties_still_mean_the_natural_mixture(prepared, tmp_path, objective):
    settings = {"objective": objective, "max_epochs": 3}
    summaries = {}
    for name in ("none", "balanced"):
        (tmp_path / name).mkdir()
        job = small_job(class_weights=name, pattern_weights=name, **settings)
        summaries[name] = train(prepared, job, TARGET_NAMES, tmp_path / f"{name}.work", tmp_path / name)
    found = summaries["balanced"].calibration
    assert min(summaries["none"].calibration.factor) > 0.8
    # Kaons weigh more than they are frequent: the correction takes certainty away from them.
    kaon = TARGET_NAMES.index("kaon")
    assert found.offset[kaon] < summaries["none"].calibration.offset[kaon] - 0.5
    assert found.loss_after < 0.8 * found.loss_before
    test = prepared.split("test")
    scores = load_classifier(tmp_path / "balanced").predict(test.features)
    for index, target in enumerate(TARGETS):
        truth = test.pdg == target.pdg
        assert scores[:, index].mean() == pytest.approx(truth.mean(), rel=0.15)
        assert calibration_error(truth, scores[:, index]) < 0.02


def test_patterns_of_the_weights_are_those_of_the_tracks(prepared):
    counts = group_counts(prepared.split("train"), TARGET_NAMES, prepared.features)
    features, pdg = (np.asarray(getattr(prepared.split("train"), name)) for name in ("features", "pdg"))
    pattern = tracks.feature_pattern(features, prepared.features)
    assert counts[TARGET_NAMES.index("proton"), 1] == ((pdg == 2212) & (pattern == 1)).sum()
    assert counts.sum() == len(pdg)
