"""Comparing models: fair or refused, differences as they are, one report."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from support.chromium import PROGRAM, chromium
from support.prepared_data import write_prepared
from support.small_training import small_job
from support.strict_page import Page
from support.trained import trained

from pidml import tracks
from pidml.comparison import Contestant, compare_models
from pidml.comparison.contestants import entrants
from pidml.comparison.cost import cost
from pidml.comparison.settings import differing, notices
from pidml.data.prepared import PreparedDataset
from pidml.errors import BundleError, CorruptFile, NoLabels, NoTracks, UnfairComparison
from pidml.evaluation import metrics
from pidml.evaluation.benchmark import judge, read_thresholds
from pidml.evaluation.counts import TARGET_PDG
from pidml.evaluation.delong import auc_difference, auc_error, placements
from pidml.evaluation.working_points import read_working_points
from pidml.export import Bundle, export_bundle
from pidml.export import bundle as bundle_module
from pidml.export.runtime import run
from pidml.plots import models as plots
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train


def contestant(prepared: PreparedDataset, name: str = "other", **job: Any) -> Contestant:
    """A model of which only the data matter."""
    return Contestant(name, JobSpec.model_validate(job), prepared, (), Path())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (4000, 1000, 2000), seed=21)


def test_models_of_one_dataset_are_judged_on_its_test_sample(prepared):
    first, second = entrants([contestant(prepared, "a"), contestant(prepared, "b")])
    test = prepared.split("test")
    for entrant in (first, second):
        np.testing.assert_array_equal(entrant.features(slice(5, 50)), test.features[5:50])


def test_a_model_with_other_features_sees_the_same_tracks_with_its_own(prepared, tmp_path):
    fewer = tuple(name for name in tracks.FEATURES if name != "fTOFSignal")
    other = write_prepared(tmp_path / "other", (4000, 1000, 2000), seed=21, features=fewer)
    _, entrant = entrants([contestant(prepared, "a"), contestant(other)])
    np.testing.assert_array_equal(entrant.features(slice(0, 2000)), other.split("test").features)
    assert "features of its own" in entrant.reason


def test_a_model_of_other_tracks_is_judged_on_those_of_the_first(prepared, tmp_path):
    names = tracks.FEATURES[::-1]
    other = write_prepared(tmp_path / "other", (3000, 500, 700), seed=22, features=names)
    _, entrant = entrants([contestant(prepared, "a"), contestant(other)])
    np.testing.assert_array_equal(entrant.features(slice(0, 9)), prepared.split("test").features[:9, ::-1])
    assert "none of which it was trained on" in entrant.reason


@pytest.mark.parametrize("sample", ["train", "validation"])
def test_a_model_trained_on_test_tracks_is_refused(prepared, tmp_path, sample):
    other = write_prepared(tmp_path / "other", (3000, 500, 700), seed=22)
    test, place = prepared.split("test"), other.path / sample
    for name, values in (("features", test.features), ("pdg", test.pdg), ("aux", test.aux)):
        own = np.load(place / f"{name}.npy")
        own[10:13] = values[[1999, 0, 77]]
        np.save(place / f"{name}.npy", own)
    with pytest.raises(UnfairComparison, match="other is trained on 3 of the 2,000 test tracks of a"):
        entrants([contestant(prepared, "a"), contestant(other)])


@pytest.mark.parametrize(
    ("job", "text"),
    [
        ({"preparation": {"cuts": {"momentum_min": 1.0}}}, "preparation.cuts differ"),
        (
            {"dataset": {"files": ["/a/b.root"]}, "producer": {"magnetic_field": 0.2}},
            "share input files .*/a/b.root.* in different ways",
        ),
    ],
)
def test_data_too_different_are_refused(prepared, tmp_path, job, text):
    other = write_prepared(tmp_path / "other", (300, 50, 70), seed=22)
    with pytest.raises(UnfairComparison, match=text):
        entrants([contestant(prepared, "a", dataset={"files": ["/a/b.root"]}), contestant(other, **job)])


def test_other_momentum_limits_or_features_on_other_tracks_are_refused(prepared, tmp_path):
    other = write_prepared(tmp_path / "other", (300, 50, 70), seed=22, features=("fTPCSignal", "fP", "fTRDSignal"))
    meta = json.loads((other.path / "meta.json").read_text()) | {"momentum_limits": {"tof": 0.6, "trd": 0.8}}
    (other.path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UnfairComparison, match=r"momentum_limits differ; a lacks the features fTRDSignal"):
        entrants([contestant(prepared, "a"), contestant(PreparedDataset.open(other.path))])


def test_data_without_labels_or_test_tracks_are_refused(tmp_path):
    data = write_prepared(tmp_path / "data", (50, 20, 30), simulation=False)
    with pytest.raises(NoLabels, match="no labels"):
        entrants([contestant(data, "a"), contestant(data)])
    empty = write_prepared(tmp_path / "empty", (50, 20, 0))
    with pytest.raises(NoTracks):
        entrants([contestant(empty, "a"), contestant(empty)])


def test_delong_agrees_with_the_bootstrap():
    rng = np.random.default_rng(4)
    truth = rng.random(3000) < 0.2
    first = (rng.normal(size=3000) + 1.2 * truth).astype(np.float32).round(1)  # with equal scores
    second = (first + rng.normal(size=3000) * 0.7).astype(np.float32)
    ours, theirs = placements(truth, first), placements(truth, second)
    assert ours.signal.mean() == pytest.approx(metrics.auc(truth, first))
    assert ours.background.mean() == pytest.approx(metrics.auc(truth, first))
    drawn = []
    for _ in range(400):
        rows = rng.integers(0, 3000, 3000)
        drawn.append([roc_auc_score(truth[rows], each[rows]) for each in (first, second)])
    drawn = np.array(drawn)
    value, error = auc_difference(ours, theirs)
    assert value == pytest.approx(roc_auc_score(truth, first) - roc_auc_score(truth, second))
    assert auc_error(ours) == pytest.approx(drawn[:, 0].std(), rel=0.15)
    assert error == pytest.approx((drawn[:, 0] - drawn[:, 1]).std(), rel=0.15)
    assert error < auc_error(ours)  # the two fluctuate together


def test_delong_without_signal_is_undefined():
    placed = placements(np.zeros(5, bool), np.arange(5, dtype=np.float32))
    assert np.isnan(auc_error(placed))
    assert np.isnan(auc_difference(placed, placed)).all()


@pytest.fixture(scope="module")
def compared(prepared, tmp_path_factory):
    """A trained model, its twin, and one that was hardly trained."""
    root = tmp_path_factory.mktemp("compared")
    contestants = []
    for name, epochs in (("trained", 4), ("hasty", 1)):
        job = small_job(max_epochs=epochs)
        job = job.model_copy(
            update={"evaluation": job.evaluation.model_copy(update={"pt_edges": (0.0, 0.5, 1.0, 5.0)})}
        )
        (root / name).mkdir()
        train(prepared, job, TARGET_NAMES, root / f"{name}-work", root / name)
        export_bundle([root / name], prepared, job, root / f"{name}-bundle")
        contestants.append(Contestant(name, job, prepared, (root / name,), root / f"{name}-bundle"))
    twin = Contestant("twin", contestants[0].job, prepared, contestants[0].trained, contestants[0].bundle)
    contestants.insert(1, twin)
    (root / "out").mkdir()
    return contestants, compare_models(contestants, root / "out"), root / "out"


def test_a_model_does_not_differ_from_its_twin_but_from_a_worse_one(compared):
    _, record, out = compared
    flat = pd.read_csv(out / "comparison_differences.csv")
    pairs = flat.groupby(["model", "reference"])
    assert set(pairs.groups) == {("twin", "trained"), ("hasty", "trained"), ("hasty", "twin")}
    twin = pairs.get_group(("twin", "trained")).dropna()
    assert (twin[["value", "low", "high", "significance"]] == 0).all(axis=None)
    hasty = pairs.get_group(("hasty", "trained")).set_index(["species", "metric"])
    for name in ("pion", "antipion"):
        assert hasty.loc[(name, "f1"), "significance"] < -5
        assert hasty.loc[(name, "auc"), "significance"] < -5
    assert len(flat) == len(record["differences"]) == 3 * 6 * 4


def test_figures_of_merit_are_those_of_the_benchmark(compared, tmp_path):
    contestants, record, _ = compared
    first = contestants[0]
    predict, thresholds = load_classifier(first.trained).predict, read_thresholds(first.trained)
    alone = judge(first.prepared, predict, thresholds, first.job, tmp_path, draw=False)
    for name in TARGET_NAMES:
        own = alone["species"][name]["network"]["all"]["overall"]
        found = record["species"][name]["trained"]["all"]["overall"]
        for figure in ("n", "signal", "purity", "efficiency", "f1"):
            assert found[figure] == own[figure], (name, figure)
        assert found["auc"] == pytest.approx(own["auc"], abs=1e-6)
        assert record["models"][0]["calibration_error"][name] == pytest.approx(
            alone["methods"]["network"]["calibration"][name]["expected_calibration_error"], abs=1e-5
        )


def test_one_track_is_timed_on_one_thread_whatever_the_machine_has(compared, monkeypatch):
    """Side by side on 16 cores each track would seem to take a sixteenth of its time."""
    first = compared[0][0]
    calls = []

    def watched(opened, standardised, batch, threads):
        calls.append((batch, threads))
        return run(opened, standardised, batch, 1)

    monkeypatch.setattr(bundle_module, "run", watched)
    opened = Bundle.open(first.bundle)
    features = np.asarray(first.prepared.split("test").features)
    found = cost(first, opened, features)
    assert {threads for batch, threads in calls if batch == 1} == {1}
    assert {threads for batch, threads in calls if batch > 1} == {0}
    session, standardised = opened.network("pion"), opened.scaling.apply(features[:500])
    started = time.perf_counter()
    for row in standardised:
        session.run(None, {session.get_inputs()[0].name: row[None]})
    alone = 1e6 * (time.perf_counter() - started) / 500
    assert found["single_us"] > 0.3 * alone


def test_time_that_the_tpc_response_took_belongs_to_the_training(compared, tmp_path):
    first = compared[0][0]
    (tmp_path / "provenance.json").write_text(json.dumps({"seconds": 12.5}))
    features = np.asarray(first.prepared.split("test").features[:50])
    assert cost(first, Bundle.open(first.bundle), features)["response_seconds"] == 0
    derived = dataclasses.replace(first, response=tmp_path)
    assert cost(derived, Bundle.open(first.bundle), features)["response_seconds"] == 12.5
    with pytest.raises(CorruptFile, match="rerun TrainTPCResponse"):
        cost(dataclasses.replace(first, response=tmp_path / "absent"), Bundle.open(first.bundle), features)


def job_of(**sections: Any) -> JobSpec:
    return JobSpec.model_validate(sections)


def test_every_setting_that_differs_is_listed_and_nothing_else():
    first = job_of(dataset={"files": ["a.root"]}, training={"accelerator": "cpu"})
    second = job_of(
        name="another", seed=7, thresholds={"mode": "purity", "target": 0.95}, model={"architecture": "masked-mlp"},
        training={"objective": "softmax", "class_weights": "balanced"},
        dataset={"files": ["a.root"], "derive": ["tpc_nsigma"]},
        adaptation={"method": "dann", "files": ["data.root"]}, evaluation={"nsigma": 2.0},
    )  # fmt: skip
    found = {row["key"]: row["values"] for row in differing([first, second])}
    assert found["seed"] == [42, 7]
    assert found["thresholds.mode"] == ["f1", "purity"]
    assert found["thresholds.target"] == [None, 0.95]
    assert found["training.objective"] == ["binary", "softmax"]
    assert found["training.class_weights"] == ["none", "balanced"]
    assert found["adaptation.method"] == ["none", "dann"]
    assert found["adaptation.files"] == [None, ["data.root"]]
    assert found["dataset.derive"] == [[], ["tpc_nsigma"]]
    assert found["model.d_model"] == [32, None]
    assert found["model.architecture"] == ["attention", "masked-mlp"]
    assert not {"name", "training.accelerator", "evaluation.nsigma", "dataset.files"} & set(found)
    assert differing([first, first]) == []
    assert notices([first, first]) == []
    assert "purity ≥ 0.95" in notices([first, second])[0]


def test_costs_are_those_of_the_training_and_are_measured(compared):
    contestants, record, _ = compared
    for each, model in zip(contestants, record["models"], strict=True):
        (folder,) = each.trained
        training = json.loads((folder / "training.json").read_text())
        assert model["cost"]["parameters"] == training["parameters"]
        assert model["cost"]["training_seconds"] == training["training_seconds"]
        assert 1 < model["cost"]["single_us"] < 1e5
        assert model["cost"]["tracks_per_second"] > 1e6 / model["cost"]["single_us"]


def test_the_report_is_one_well_formed_file(compared):
    _, record, out = compared
    text = (out / "comparison.html").read_text()
    page = Page(text)
    assert all(resource.startswith("data:image/png;base64,") for resource in page.resources)
    assert len(page.resources) == len(record["plots"]) == 20
    assert all(link.removeprefix("#") in page.ids for link in page.links)
    assert {path.name for path in out.glob("*.png")} == {plot["file"] for plot in record["plots"]}
    assert "twin against trained: F1 is higher for 0, lower for 0 and not significantly different for" in text
    assert "training.max_epochs" in text
    assert "largest F1" in text


@pytest.mark.browser
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
def test_the_report_in_a_browser(compared):
    _, _, out = compared
    with chromium() as browser:
        browser.call("Network.enable")
        browser.open((out / "comparison.html").as_uri())
        sent = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
        assert {address.split(":")[0] for address in sent if not address.endswith("comparison.html")} <= {"data"}
        assert browser.messages() == []
        assert browser.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
        headings = browser.evaluate("[...document.querySelectorAll('h2')].map(each => each.innerText)")
        assert headings == ["Summary", "Significance of differences", "Species", "Calibration", "Cost", "Models"]
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_models_of_every_making_are_compared(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "draw_all", lambda *_: [])  # another test draws
    experimental = write_prepared(tmp_path / "experimental", (2000, 500, 10), seed=5, simulation=False)
    makings: dict[str, dict[str, Any]] = {
        "trees": {"architecture": "boosted-trees", "thresholds": {"mode": "purity", "target": 0.9, "per_pt": True}},
        "separate": {"model": {"heads": "separate"}},
        "adapted": {"adaptation": {"method": "dann", "files": ["x.root"]}, "experimental": experimental},
        "derived": {
            "dataset": {"derive": ["tpc_nsigma"]}, "response": {"species": ["pion"]},
            "training": {"objective": "softmax"},
        },
    }  # fmt: skip
    contestants = []
    for name, making in makings.items():
        folder = tmp_path / name
        folder.mkdir()
        job, trained_in = trained(prepared, folder, evaluation={"pt_edges": (0.0, 1.0, 5.0)}, **making)
        export_bundle(trained_in, prepared, job, folder / "bundle")
        contestants.append(Contestant(name, job, prepared, tuple(trained_in), folder / "bundle"))
    (tmp_path / "out").mkdir()
    record = compare_models(contestants, tmp_path / "out")
    test = prepared.split("test")
    truth = np.asarray(test.pdg) == TARGET_PDG[0]
    for each in contestants:
        scores = load_classifier(each.trained).predict(np.asarray(test.features))
        points = read_working_points(each.trained, prepared, each.job.thresholds)
        accepted = (scores >= points.at(np.asarray(test.column("fPt"))))[:, 0]
        own = record["species"]["pion"][each.name]["all"]["overall"]
        # A certainty at its threshold may fall on either side of it in another runtime.
        assert own["efficiency"] == pytest.approx((accepted & truth).sum() / truth.sum(), abs=2e-3), each.name
        assert own["purity"] == pytest.approx((accepted & truth).sum() / accepted.sum(), abs=2e-3), each.name
        assert own["auc"] == pytest.approx(roc_auc_score(truth, scores[:, 0]), abs=1e-5), each.name
    assert {row["key"] for row in record["settings"]} > {"model.heads", "thresholds.mode", "adaptation.method"}
    assert "rules" in record["notices"][0]
    assert "different rules" in (tmp_path / "out" / "comparison.html").read_text()


def test_a_bundle_of_other_data_is_refused(compared, prepared, tmp_path):
    contestants, _, _ = compared
    shutil.copytree(contestants[0].bundle, tmp_path / "bundle")
    fewer = write_prepared(tmp_path / "fewer", (4000, 1000, 2000), seed=21, features=tracks.FEATURES[:8])
    wrong = Contestant("wrong", contestants[0].job, fewer, contestants[0].trained, tmp_path / "bundle")
    with pytest.raises(BundleError, match="wrong"):
        compare_models([contestants[0], wrong], tmp_path)
