import itertools
import json
import logging
from types import SimpleNamespace

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
    assert "outside" not in replaced_per_pt(table, {"kaon": 0.9})
    outside = replaced_per_pt(table | {"outside": {"pion": 0.5, "kaon": 0.6}}, {"kaon": 0.9})["outside"]
    assert outside == {"pion": 0.5, "kaon": 0.9}
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


def test_bins_have_thresholds_of_their_own_and_the_rest_one_together(prepared, folder):
    rule = Thresholds(mode="efficiency", target=0.9, per_pt=True, pt_edges=EDGES)
    points = read_working_points([folder], prepared, rule)
    validation = prepared.split("validation")
    certainty, pt = np.load(folder / CERTAINTY_FILE), np.asarray(validation.column("fPt"))
    assert certainty.dtype == np.float32
    limits = points.at(pt)
    outside = (pt < EDGES[0]) | (pt >= EDGES[-1])
    assert outside.any()
    rest = np.array([points.remainders[name].choice.threshold for name in TARGET_NAMES], np.float32)
    np.testing.assert_array_equal(limits[outside], np.tile(rest, (outside.sum(), 1)))
    np.testing.assert_array_equal(at_pt(points.thresholds, json.loads(json.dumps(points.table())), pt), limits)
    own = 0
    for position, target in enumerate(TARGETS):
        truth = np.asarray(validation.pdg) == target.pdg
        for index, (low, high) in enumerate(itertools.pairwise(EDGES)):
            mine = (pt >= low) & (pt < high)
            choice = points.bins[target.name][index]
            if (mine & truth).sum() < 50:
                assert choice is None
                assert (limits[mine, position] == rest[position]).all()
                continue
            own += 1
            accepted = certainty[mine, position] >= limits[mine, position]
            assert np.mean(accepted[truth[mine]]) == pytest.approx(0.9, abs=0.02)
    assert own >= 9


def rare_at_high_momentum(tracks=6000):
    """Kaons of which few have a high momentum, where they are hard to tell; every other species is as certain anywhere.

    Returns a sample and certainties: kaons 300 at 0–1, 40 each at 1–2 and 2–3 and outside, 10 at 3–4.
    """
    rng = np.random.default_rng(3)
    pt = rng.uniform(0, 5, tracks).astype(np.float32)
    pdg = rng.choice([each.pdg for each in TARGETS if each.name != "kaon"], tracks)
    for low, count in ((0, 300), (1, 40), (2, 40), (3, 10), (4, 40)):
        rows = np.flatnonzero((pt >= low) & (pt < low + 1))[:count]
        pdg[rows] = 321
    truth = pdg[:, None] == np.array([each.pdg for each in TARGETS])
    certainty = np.where(truth, 0.5, 0.0) + 0.5 * rng.random(truth.shape)
    kaons = (pdg == 321) & (pt >= 1)
    certainty[kaons, 1] = 0.6 * rng.random(kaons.sum())  # hard to tell
    sample = SimpleNamespace(pdg=pdg, column=lambda name: {"fPt": pt}[name])
    return sample, certainty.astype(np.float32), pt


HARD = Thresholds(mode="efficiency", target=0.9, per_pt=True, pt_edges=(0.0, 1.0, 2.0, 3.0, 4.0))


def test_bins_with_few_tracks_reach_the_target_together_and_are_named(caplog):
    sample, certainty, pt = rare_at_high_momentum()
    with caplog.at_level(logging.WARNING):
        points = chosen(HARD, sample, certainty)
    accepted, kaons = certainty[:, 1] >= points.at(pt)[:, 1], sample.pdg == 321
    assert accepted[kaons].mean() >= 0.9
    assert accepted[kaons & (pt >= 1)].mean() >= 0.9
    table = points.table()
    assert table["own"]["kaon"] == [True, False, False, False]
    assert len({*table["thresholds"]["kaon"][1:], table["outside"]["kaon"]}) == 1
    assert table["outside"]["kaon"] < points.overall["kaon"].threshold
    (line,) = (line for line in points.notices() if line.startswith("kaon"))
    reached = {low: accepted[kaons & (pt >= low) & (pt < low + 1)].mean() for low in (1, 2, 3)}
    for low, value in reached.items():
        assert f"{low}–{low + 1} ({value:.4f})" in line
    assert f"efficiency {accepted[kaons & (pt >= 1)].mean():.4f} on these tracks" in line
    assert line in caplog.text
    record = points.record()["bins"]["kaon"]
    assert [each["own"] for each in record] == table["own"]["kaon"]
    assert [each["reached"] for each in record[1:]] == pytest.approx(list(reached.values()))
    assert not [line for line in points.notices() if line.startswith("pion")]


def test_bins_with_few_tracks_together_have_the_threshold_of_all_momenta():
    sample, certainty, pt = rare_at_high_momentum()
    sample.pdg[(sample.pdg == 321) & (pt >= 2)] = 211
    points = chosen(HARD, sample, certainty)
    assert points.table()["thresholds"]["kaon"][1:] == [points.overall["kaon"].threshold] * 3
    assert points.table()["own"]["kaon"] == [True, False, False, False]
    (line,) = (line for line in points.notices() if line.startswith("kaon"))
    efficiency = (certainty[(sample.pdg == 321) & (pt >= 1), 1] >= np.float32(points.overall["kaon"].threshold)).mean()
    assert f"40 of the species together, have the threshold of all momenta; it has efficiency {efficiency:.4f}" in line
    assert "2–3 (undefined)" in line


def test_thresholds_per_bin_of_older_bundles_hold_as_they_did():
    overall = np.linspace(0.1, 0.6, 6)
    table = {"pt_edges": [0.0, 1.0], "unit": "GeV/c", "thresholds": {name: [0.9] for name in TARGET_NAMES}}
    found = at_pt(overall, table, np.array([0.5, 2.0], np.float32))
    np.testing.assert_array_equal(found, np.array([np.full(6, 0.9), overall], np.float32))


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
    assert "chosen on validation tracks of all momenta for purity ≥ 0.93 thresholds_pt.json" in " ".join(readme.split())
    assert max(map(len, readme.splitlines())) <= 120
    choice, table = bundle.manifest["threshold_choice"], bundle.pt_table
    short = [name for name in TARGET_NAMES if not all(table["own"][name])]
    assert short
    for name in short:
        (line,) = (line for line in choice["notices"] if line.startswith(f"{name}: fewer than 50"))
        assert line in " ".join(readme.split())
        assert [each["own"] for each in choice["bins"][name]] == table["own"][name]
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
