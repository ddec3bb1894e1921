import itertools
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.apply.thresholds import replaced_per_pt
from pidml.errors import BundleError, CorruptFile
from pidml.evaluation.benchmark import run_benchmark
from pidml.evaluation.thresholds import FEWEST_ACCEPTED, choose
from pidml.evaluation.working_points import CERTAINTY_FILE, at_pt, chosen, read_working_points
from pidml.export import Bundle, export_bundle
from pidml.spec.model_sections import Evaluation
from pidml.spec.thresholds_section import Thresholds
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import train

EDGES = (0.2, 0.5, 1.0, 2.0)


def figures(truth, certainty, threshold):
    accepted = certainty >= np.float32(threshold)
    tp = (truth & accepted).sum()
    return accepted.sum(), tp / max(accepted.sum(), 1), tp / truth.sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["purity", "efficiency"]), st.floats(0.05, 0.99))
def test_no_other_threshold_does_what_is_asked_better(seed, mode, target):
    rng = np.random.default_rng(seed)
    certainty = (rng.integers(0, 40, 300) / 40).astype(np.float32)  # many are equal
    truth = rng.random(300) < certainty
    if not truth.any():
        return
    best = choose(Thresholds(mode=mode, target=target), truth, certainty)
    accepted, purity, efficiency = figures(truth, certainty, best.threshold)
    assert best.reached == pytest.approx(purity if mode == "purity" else efficiency)
    for other in np.unique(certainty):
        many, pure, efficient = figures(truth, certainty, other)
        if mode == "efficiency":
            assert best.met
            assert efficiency >= target
            assert many >= accepted or efficient < target
        elif best.met:
            assert purity >= target
            assert many <= accepted or pure < target
        else:
            assert many < FEWEST_ACCEPTED or pure <= purity < target


def test_a_few_pure_tracks_do_not_reach_a_purity():
    rng = np.random.default_rng(1)
    certainty = rng.random(2000).astype(np.float32)
    truth = rng.random(2000) < 0.5
    truth[np.argsort(-certainty)[:10]] = True  # by chance
    found = choose(Thresholds(mode="purity", target=0.95), truth, certainty)
    assert not found.met
    accepted, purity, _ = figures(truth, certainty, found.threshold)
    assert accepted >= FEWEST_ACCEPTED
    assert found.reached == pytest.approx(purity)
    assert purity < 0.95


def test_certainties_that_are_almost_zero_are_told_from_zero():
    certainty = np.array([0.9, 0.8, 1e-45, 0.0, 0.0], np.float32)
    for truth, accepted in (([1, 1, 1, 0, 0], 3), ([1, 1, 0, 0, 0], 2), ([1, 1, 1, 1, 1], 5)):
        found = choose(Thresholds(), np.array(truth, bool), certainty)
        assert (certainty >= np.float32(found.threshold)).sum() == accepted


def test_what_a_mode_does_not_read_does_not_count():
    assert Thresholds(target=0.5, pt_edges=(0.0, 1.0)).identity() == Thresholds().identity()
    assert Thresholds(mode="purity", target=0.5).identity() != Thresholds(mode="purity").identity()
    assert Thresholds(per_pt=True, pt_edges=(0.0, 1.0)).identity() != Thresholds(per_pt=True).identity()


def test_thresholds_by_hand_hold_in_every_bin():
    table = {"pt_edges": [0.0, 1.0, 2.0], "thresholds": {"pion": [0.1, 0.2], "kaon": [0.3, 0.4]}}
    assert replaced_per_pt(table, {"kaon": 0.9})["thresholds"] == {"pion": [0.1, 0.2], "kaon": [0.9, 0.9]}
    assert replaced_per_pt(None, {"kaon": 0.9}) is None


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (6000, 12_000, 12_000))


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    train(prepared, small_job("boosted-trees"), TARGET_NAMES, out / "work", out)
    return out


def job_with(**values):
    return small_job().model_copy(update={"thresholds": Thresholds(**values)})


def test_bins_have_thresholds_of_their_own_and_the_rest_the_overall_one(prepared, folder):
    rule = Thresholds(mode="efficiency", target=0.9, per_pt=True, pt_edges=EDGES)
    points = read_working_points([folder], prepared, rule)
    validation = prepared.split("validation")
    certainty, pt = np.load(folder / CERTAINTY_FILE), np.asarray(validation.column("fPt"))
    assert certainty.dtype == np.float32
    limits = points.at(pt)
    outside = (pt < EDGES[0]) | (pt >= EDGES[-1])
    assert outside.any()
    np.testing.assert_array_equal(limits[outside], np.tile(points.thresholds.astype(np.float32), (outside.sum(), 1)))
    np.testing.assert_array_equal(at_pt(points.thresholds, json.loads(json.dumps(points.table())), pt), limits)
    own = 0
    for position, target in enumerate(TARGETS):
        truth = np.asarray(validation.pdg) == target.pdg
        for index, (low, high) in enumerate(itertools.pairwise(EDGES)):
            mine = (pt >= low) & (pt < high)
            choice = points.bins[target.name][index]
            if (mine & truth).sum() < 50:
                assert choice is None
                assert (limits[mine, position] == np.float32(points.thresholds[position])).all()
                continue
            own += 1
            accepted = certainty[mine, position] >= limits[mine, position]
            assert np.mean(accepted[truth[mine]]) == pytest.approx(0.9, abs=0.02)
    assert own >= 9


def test_the_benchmark_cuts_every_method_where_the_job_says(prepared, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pidml.plots.benchmark.draw_all", lambda *_: [])
    (prepared.path / "meta.json").write_text(json.dumps(prepared.meta | {"likelihood_known": True}))
    known = type(prepared).open(prepared.path)
    record = run_benchmark(known, [folder], job_with(mode="purity", target=0.9), tmp_path)
    for name in TARGET_NAMES:
        for method in ("network", "bayes", "optimum"):
            own = record["species"][name][method]["all"]["overall"]
            assert own["purity"] == pytest.approx(0.9, abs=0.06), (name, method)
    assert record["threshold_choice"]["mode"] == "purity"
    assert record["threshold_choice"]["species"]["kaon"]["met"]
    assert record["notices"] == []
    text = record["methods"]["network"]["description"]
    assert "purity ≥ 0.9" in text
    job = job_with(mode="efficiency", target=0.8, per_pt=True, pt_edges=EDGES)
    job = job.model_copy(update={"evaluation": Evaluation(pt_edges=EDGES)})
    per_pt = run_benchmark(known, [folder], job, tmp_path)
    bins = [each for each in per_pt["species"]["pion"]["network"]["all"]["bins"] if each["signal"] > 300]
    assert len(bins) == 3
    for each in bins:
        assert each["efficiency"] == pytest.approx(0.8, abs=0.05)


def test_what_cannot_be_reached_is_said(prepared, folder, tmp_path, caplog):
    certainty = np.load(folder / CERTAINTY_FILE).copy()
    certainty[:, 1] = np.random.default_rng(1).random(len(certainty))  # a network that knows nothing of kaons
    rule = Thresholds(mode="purity", target=0.95, per_pt=True, pt_edges=EDGES)
    with caplog.at_level(logging.WARNING):
        points = chosen(rule, prepared.split("validation"), certainty)
    assert points.overall["pion"].met
    assert not points.overall["kaon"].met
    first, second = (line for line in points.notices() if line.startswith("kaon"))
    assert f"purity 0.95 on the validation sample; the best is {points.overall['kaon'].reached:.4f}" in first
    assert "0.2–0.5" in second
    assert first in caplog.text
    assert not points.record()["species"]["kaon"]["met"]


def test_the_bundle_holds_thresholds_per_bin(prepared, folder, tmp_path):
    job = job_with(mode="purity", target=0.93, per_pt=True, pt_edges=EDGES)
    summary = export_bundle([folder], prepared, job, tmp_path / "bundle")
    assert "thresholds_pt.json" in summary.files
    bundle = Bundle.open(tmp_path / "bundle", threads=1)
    points = read_working_points([folder], prepared, job.thresholds)
    assert bundle.thresholds == dict(zip(TARGET_NAMES, points.thresholds, strict=True))
    test = prepared.split("test")
    certainty, pt = bundle.predict(np.asarray(test.features)), np.asarray(test.column("fPt"))
    np.testing.assert_array_equal(bundle.accepted(certainty, pt), certainty >= points.at(pt))
    with pytest.raises(BundleError, match="transverse momentum"):
        bundle.accepted(certainty)
    readme = (tmp_path / "bundle" / "README").read_text()
    assert "purity ≥ 0.93 in each bin of transverse momentum" in readme
    assert "thresholds_pt.json" in readme
    assert bundle.manifest["threshold_choice"]["target"] == 0.93
    plain = export_bundle([folder], prepared, job_with(), tmp_path / "plain")
    assert "thresholds_pt.json" not in plain.files
    assert json.loads((tmp_path / "plain" / "thresholds.json").read_text()) == pytest.approx(
        json.loads((folder / "thresholds.json").read_text())
    )


@pytest.mark.parametrize("damage", ["absent", "garbage", "of another sample"])
def test_certainties_that_do_not_fit_are_refused(prepared, folder, tmp_path, damage):
    (tmp_path / "model.pt").write_bytes((folder / "model.pt").read_bytes())
    if damage == "garbage":
        (tmp_path / CERTAINTY_FILE).write_bytes(b"no array")
    elif damage == "of another sample":
        np.save(tmp_path / CERTAINTY_FILE, np.zeros((12_001, 6), np.float32))
    with pytest.raises(CorruptFile, match=r"validation_certainty\.npy"):
        read_working_points([tmp_path], prepared, Thresholds())
