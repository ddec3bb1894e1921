"""Feature importance finds what a classifier reads, no more and no less, whatever detectors a track lacks."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.inspection import permutation_importance as of_sklearn
from sklearn.metrics import roc_auc_score
from support.explained import NAMES, TPC, reads_tpc_only, sample_of
from support.prepared_data import write_prepared
from support.trained import trained

from pidml import tracks
from pidml.errors import NoLabels, NoTracks, ToolMissing
from pidml.evaluation.counts import truth_matrix
from pidml.evaluation.working_points import read_working_points
from pidml.explanation import explain_model
from pidml.explanation.explain import explain
from pidml.explanation.permutation import FIGURES, SELECTIONS, exchanged, permutation_importance
from pidml.explanation.sample import Sample, Subject
from pidml.plots import explanation as plots
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier

THRESHOLDS = np.full(6, 0.5)


def test_the_sample_holds_every_pattern_and_tracks_that_are_alike_lack_the_same(sample, prepared):
    assert set(sample.pattern) == {0, 1, 2, 3}
    assert sorted(np.concatenate(sample.alike)) == list(range(1500))
    for group in sample.alike:
        assert len(np.unique(np.isnan(sample.features[group]), axis=0)) == 1
    test = prepared.split("test")
    np.testing.assert_array_equal(sample.features, test.features[sample.rows])
    np.testing.assert_array_equal(sample.pdg, test.pdg[sample.rows])


def importance(predict, sample, subjects, repeats, seed):
    thresholds = np.full((len(sample), 6), 0.5, np.float32)
    outputs = predict(sample.features)
    return permutation_importance(predict, sample, subjects, outputs, thresholds, repeats=repeats, seed=seed)


def test_permutation_importance_of_a_classifier_that_reads_one_feature(sample):
    subjects = sample.subjects()
    found = importance(reads_tpc_only, sample, subjects, repeats=3, seed=1)
    for position, subject in enumerate(subjects):
        if TPC in subject.columns:
            assert np.abs(found.value[position, list(FIGURES).index("log_loss"), 0]).min() > 0.01, subject.name
        else:
            assert np.nan_to_num(found.value[position]).max() == 0, subject.name
    tof = [subject.name for subject in subjects].index("TOF")
    lacking = [p is not None and bool(p & tracks.Missing.TOF) for p in SELECTIONS]
    np.testing.assert_array_equal(np.isnan(found.value[tof, list(FIGURES).index("log_loss"), :, 0]), lacking)


def test_permutation_importance_agrees_with_scikit_learn_where_nothing_is_missing(prepared):
    test = prepared.split("test")
    complete = np.flatnonzero(tracks.feature_pattern(np.asarray(test.features), NAMES) == 0)
    sample = Sample.of(complete, test, NAMES)
    scale = sample.features.std(axis=0).clip(1e-3)

    class Estimator(BaseEstimator):
        def fit(self, features, labels):
            return self

        def predict(self, features):
            x = features / scale
            score = x[:, [TPC]] - x[:, [4]] + 0.3 * x[:, [3]] * x[:, [8]] + np.linspace(0, 0.1, 6)
            return (1 / (1 + np.exp(-score))).astype(np.float32)

    kaon = TARGET_NAMES.index("kaon")

    def score(estimator, features, labels):
        return roc_auc_score(labels, estimator.predict(features)[:, kaon])

    labels = truth_matrix(sample.pdg)[:, kaon]
    theirs = of_sklearn(Estimator(), sample.features, labels, scoring=score, n_repeats=20, random_state=2)
    ours = importance(Estimator().predict, sample, sample.subjects()[:16], repeats=20, seed=2)
    value, error = ours.value[:, 0, 0, kaon], ours.error[:, 0, 0, kaon]
    spread = np.hypot(error, theirs.importances_std / np.sqrt(20))
    assert np.abs(value).max() > 0.05
    assert (np.abs(value - theirs.importances_mean) <= 4 * spread).all()
    assert ours.baseline[0, 0, kaon] == pytest.approx(
        roc_auc_score(labels, Estimator().predict(sample.features)[:, kaon])
    )


@settings(max_examples=40, deadline=None)
@given(
    hidden=st.lists(st.integers(0, 3), min_size=2, max_size=40),
    columns=st.sets(st.integers(0, 15), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_exchanging_keeps_every_missing_pattern_and_touches_nothing_else(hidden, columns, seed):
    features = np.random.default_rng(seed).normal(size=(len(hidden), 16)).astype(np.float32)
    for flag, names in ((1, ("fTOFSignal", "fBeta")), (2, ("fTRDPattern",))):
        for name in names:
            features[np.array(hidden) & flag > 0, NAMES.index(name)] = np.nan
    sample = sample_of(features)
    alike = sample.alike
    subject = Subject("some", tuple(sorted(columns)), is_kind=True)
    changed = exchanged(sample, subject, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.isnan(changed), np.isnan(features))
    others = [column for column in range(16) if column not in columns]
    np.testing.assert_array_equal(changed[:, others], features[:, others])
    for group in alike:  # the features of a subject stay together
        before, after = ({tuple(row) for row in np.nan_to_num(each[group][:, list(subject.columns)])}
                         for each in (features, changed))  # fmt: skip
        assert before == after


@pytest.fixture(scope="module")
def explained(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("explained")
    job = JobSpec.model_validate({"evaluation": {"explain_tracks": 600}})
    return explain(prepared, reads_tpc_only, THRESHOLDS, job, out), out


def test_files_say_the_same(explained, prepared):
    record, out = explained
    assert json.loads((out / "explanation.json").read_text()) == record
    values, of_track = np.load(out / "shapley.npy"), np.load(out / "shapley_tracks.npz")
    test = prepared.split("test")
    output = reads_tpc_only(np.asarray(test.features[of_track["row"]]))
    np.testing.assert_allclose(np.nansum(values, axis=2), output - of_track["base"], atol=1e-6)
    flat = pd.read_csv(out / "explanation_shapley.csv").set_index(["species", "selection", "subject"])
    expected = np.abs(values[:, TARGET_NAMES.index("kaon"), TPC]).mean()
    assert flat.loc[("kaon", "all", "fTPCSignal"), "mean_abs"] == pytest.approx(expected, rel=1e-5)
    assert record["shapley"]["kaon"]["all"]["fTPCSignal"]["mean_abs"] == pytest.approx(expected, rel=1e-5)
    assert ("kaon", "no-tof", "fBeta") not in flat.index
    assert ("kaon", "no-tof", "fTPCSignal") in flat.index
    permuted = pd.read_csv(out / "explanation_permutation.csv").set_index(["species", "selection", "subject", "figure"])
    assert permuted.loc[("kaon", "all", "fTPCSignal", "log_loss"), "importance"] > 0
    assert ("kaon", "no-tof", "fBeta", "auc") not in permuted.index


def test_every_figure_is_there_and_is_a_picture(explained):
    record, out = explained
    assert {path.name for path in out.glob("*.png")} == {plot["file"] for plot in record["plots"]}
    assert len(record["plots"]) == 13
    for plot in record["plots"]:
        picture = Image.open(out / plot["file"])
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(1 << 16)) > 10


def test_what_cannot_be_explained_says_so(prepared, tmp_path, monkeypatch):
    job = JobSpec()
    data = write_prepared(tmp_path / "data", (50, 20, 30), simulation=False)
    with pytest.raises(NoLabels, match="no fPdgCode"):
        explain(data, reads_tpc_only, THRESHOLDS, job, tmp_path)
    empty = write_prepared(tmp_path / "empty", (50, 20, 0))
    with pytest.raises(NoTracks, match="test sample is empty"):
        explain(empty, reads_tpc_only, THRESHOLDS, job, tmp_path)
    few = write_prepared(tmp_path / "few", (50, 20, 8))
    with pytest.raises(NoTracks, match="too few to compare"):
        explain(few, reads_tpc_only, THRESHOLDS, job, tmp_path)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ToolMissing, match="captum") as caught:
        explain(prepared, reads_tpc_only, THRESHOLDS, job, tmp_path)
    assert "pidml[explain]" in caught.value.hint
    assert not list(tmp_path.glob("*shapley*"))


def test_one_missing_pattern_only_and_a_rare_species_are_no_obstacle(tmp_path):
    data = write_prepared(tmp_path / "data", (200, 50, 150), keep_pdg=(211, -211))
    hidden = np.load(data.path / "test" / "features.npy")
    hidden[:, [NAMES.index(name) for name in ("fTRDPattern", "fTOFSignal", "fBeta")]] = np.nan
    np.save(data.path / "test" / "features.npy", hidden)
    record = explain(data, reads_tpc_only, THRESHOLDS, JobSpec(), tmp_path)
    assert list(record["patterns"]) == ["no-trd-no-tof"]
    assert "auc" not in record["permutation"]["kaon"]["all"]["fTPCSignal"]
    assert "auc" in record["permutation"]["pion"]["all"]["fTPCSignal"]
    assert "fBeta" not in record["shapley"]["pion"]["all"]


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("attention", {"model": {"heads": "separate"}}),
        ("boosted-trees", {"training": {"objective": "softmax"}, "thresholds": {"mode": "purity", "target": 0.9}}),
        ("mlp", {"thresholds": {"mode": "efficiency", "target": 0.8, "per_pt": True, "pt_edges": [0, 0.6, 5]}}),
    ],
)
def test_trained_models_are_explained_as_they_are_deployed(prepared, tmp_path, architecture, settings, monkeypatch):
    monkeypatch.setattr(plots, "draw_all", lambda *_: [])  # other tests draw
    few = {"explain_tracks": 200}
    job, folders = trained(prepared, tmp_path, architecture, evaluation=few, **settings)
    (tmp_path / "out").mkdir()
    record = explain_model(prepared, folders, job, tmp_path / "out")
    values = np.load(tmp_path / "out" / "shapley.npy")
    with np.load(tmp_path / "out" / "shapley_tracks.npz") as file:
        of_track = dict(file)
    test = prepared.split("test")
    output = load_classifier(folders).predict(np.asarray(test.features[of_track["row"]]))
    explained = ~np.isnan(of_track["base"][:, 0])
    assert explained.sum() == record["tracks"] - record["without_shapley"] > 150
    np.testing.assert_allclose(
        np.nansum(values, axis=2)[explained], (output - of_track["base"])[explained], atol=2e-5
    )  # fmt: skip
    points = read_working_points(folders, prepared, job.thresholds)
    assert record["thresholds"] == points.rule.rule
    accepted = output >= points.at(np.asarray(test.column("fPt")[of_track["row"]]))
    truth = truth_matrix(np.asarray(test.pdg[of_track["row"]]))
    pion = TARGET_NAMES.index("pion")
    right, wrong = (accepted & truth)[:, pion].sum(), (accepted ^ truth)[:, pion].sum()
    baseline = record["permutation"]["pion"]["all"]["fTPCSignal"]["f1"]["baseline"]
    assert baseline == pytest.approx(2 * right / (2 * right + wrong))
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []
