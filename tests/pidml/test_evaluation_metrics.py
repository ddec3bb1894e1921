from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from pidml.evaluation import metrics
from pidml.evaluation.calibration import Reliability
from pidml.evaluation.counts import CLASS_NAMES, TARGET_PDG, SelectionCounts, bin_index, class_index
from pidml.evaluation.intervals import ONE_SIGMA, clopper_pearson
from pidml.evaluation.paired import PairedCounts, differences, f1_ratio
from pidml.spec import JobSpec

EDGES = JobSpec().evaluation.pt_edges


@pytest.fixture
def toy():
    rng = np.random.default_rng(3)
    size = 4000
    pdg = rng.choice([*TARGET_PDG, 11, -13, 0], size).astype(np.int32)
    pattern = rng.integers(0, 4, size).astype(np.uint8)
    pt = rng.exponential(1.5, size).astype(np.float32)
    selected = rng.random((size, 6)) < np.where(pdg[:, None] == TARGET_PDG, 0.8, 0.1)
    return pdg, pattern, pt, selected


def test_counts_agree_with_sklearn_in_every_selection(toy):
    pdg, pattern, pt, selected = toy
    counts = SelectionCounts(EDGES)
    counts.add(pdg, pattern, pt, selected)
    compared = 0
    for target, code in enumerate(TARGET_PDG):
        for wanted in (None, 0, 1, 2, 3):
            judged = metrics.performance(counts.outcome(target, wanted))
            for index, (low, high) in enumerate(pairwise(EDGES)):
                mine = (pt >= low) & (pt < high) & ((pattern == wanted) if wanted is not None else True)
                truth, chosen = pdg[mine] == code, selected[mine, target]
                if not truth.any() or not chosen.any():
                    continue
                precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, chosen, average="binary")
                assert judged.purity.value[index] == pytest.approx(precision)
                assert judged.efficiency.value[index] == pytest.approx(recall)
                assert judged.f1.value[index] == pytest.approx(f1)
                compared += 1
    assert compared > 400


def test_totals_include_tracks_outside_the_bins(toy):
    pdg, pattern, pt, selected = toy
    assert (pt >= EDGES[-1]).sum() > 50
    counts = SelectionCounts(EDGES)
    counts.add(pdg, pattern, pt, selected)
    total = counts.total(1)
    assert int(total.tp[0]) == int(((pdg == 321) & selected[:, 1]).sum())
    assert sum(int(part[0]) for part in vars(total).values()) == len(pdg)


def test_chunks_add_up(toy):
    whole, first, second = SelectionCounts(EDGES), SelectionCounts(EDGES), SelectionCounts(EDGES)
    whole.add(*toy)
    first.add(*(each[:1234] for each in toy))
    second.add(*(each[1234:] for each in toy))
    np.testing.assert_array_equal((first + second).values, whole.values)
    with pytest.raises(ValueError, match="different bins"):
        first + SelectionCounts((0.0, 1.0))


def test_empty_selections_are_undefined_not_zero():
    counts = SelectionCounts((0.0, 1.0, 2.0))
    # One pion below 1 GeV/c, accepted as kaon; nothing above.
    selected = np.zeros((1, 6), bool)
    selected[0, 1] = True
    counts.add(np.array([211], np.int32), np.zeros(1, np.uint8), np.array([0.5], np.float32), selected)
    pion, kaon = (metrics.performance(counts.outcome(target)) for target in (0, 1))
    assert np.isnan(pion.purity.value[0])
    assert pion.efficiency.value[0] == 0.0
    assert pion.efficiency.high[0] == pytest.approx(1 - (1 - ONE_SIGMA) / 2)
    assert np.isnan(kaon.efficiency.value[0])
    assert kaon.purity.value[0] == 0.0
    for judged in (pion, kaon):
        for interval in vars(judged).values():
            assert np.isnan([interval.value[1], interval.low[1], interval.high[1]]).all()


def test_bin_edges_belong_to_the_bin_above():
    values = np.array([-0.1, 0.0, 0.2, 0.19999, 4.999, 5.0, np.nan], np.float32)
    assert bin_index(values, EDGES).tolist() == [19, 0, bin_index(np.array([0.2], np.float32), EDGES)[0], 0, 18, 19, 19]
    assert bin_index(np.array([0.5], np.float32), EDGES)[0] == 4


def test_class_index_knows_every_species_and_the_rest():
    names = [CLASS_NAMES[i] for i in class_index(np.array([211, -2212, 11, -11, 13, 1000010020], np.int32))]
    assert names == ["pion", "antiproton", "electron", "positron", "muon", "other"]


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 17), (400, 1000)])
def test_clopper_pearson_agrees_with_scipy(k, n):
    expected = stats.binomtest(k, n).proportion_ci(ONE_SIGMA, method="exact")
    low, high = clopper_pearson(k, n)
    assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize("probability", [0.02, 0.5, 0.97])
def test_intervals_cover_at_least_as_often_as_they_say(probability):
    trials = 60
    outcomes = np.arange(trials + 1)
    low, high = clopper_pearson(outcomes, trials)
    covers = (low <= probability) & (probability <= high)
    coverage = stats.binom.pmf(outcomes, trials, probability)[covers].sum()
    assert ONE_SIGMA <= coverage < 0.92


def test_f1_interval_covers_the_true_f1():
    """Toys: with true rates fixed, the interval of F1 holds the F1 of infinitely many tracks as often as it says."""
    rng = np.random.default_rng(11)
    rates = np.array([0.05, 0.02, 0.03, 0.90])  # tp, fp, fn, tn
    truth = 2 * rates[0] / (2 * rates[0] + rates[1] + rates[2])
    toys = rng.multinomial(2000, rates, size=1500)
    judged = metrics.performance(metrics.Outcome(*(toys[:, i] for i in range(4))))
    covered = np.mean((judged.f1.low <= truth) & (truth <= judged.f1.high))
    assert 0.67 < covered < 0.76


def test_auc_agrees_with_sklearn_with_many_equal_scores():
    rng = np.random.default_rng(5)
    truth = rng.random(3000) < 0.1
    scores = np.round(rng.random(3000) * 0.6 + 0.4 * truth, 1).astype(np.float32)
    assert metrics.auc(truth, scores) == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
    with_infinity = scores.copy()
    with_infinity[::7] = -np.inf
    finite = np.where(np.isfinite(with_infinity), with_infinity, -1.0)
    assert metrics.auc(truth, with_infinity) == pytest.approx(sk.roc_auc_score(truth, finite), abs=1e-12)


def test_auc_without_signal_or_background_is_undefined():
    scores = np.array([0.1, 0.9], np.float32)
    assert np.isnan(metrics.auc(np.zeros(2, bool), scores))
    assert np.isnan(metrics.auc(np.ones(2, bool), scores))


def test_curve_agrees_with_sklearn():
    rng = np.random.default_rng(9)
    truth = rng.random(2000) < 0.3
    scores = np.round(rng.random(2000) * 0.7 + 0.3 * truth, 2).astype(np.float32)
    full = metrics.curve(truth, scores)
    false_positives, efficiency, thresholds = sk.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(full.false_positive_rate, false_positives[1:])
    np.testing.assert_allclose(full.efficiency, efficiency[1:])
    np.testing.assert_allclose(full.threshold, thresholds[1:])
    precision, recall, _ = sk.precision_recall_curve(truth, scores)
    np.testing.assert_allclose(full.purity[::-1], precision[:-1])
    np.testing.assert_allclose(full.efficiency[::-1], recall[:-1])


def test_thinned_curve_is_part_of_the_full_one_and_keeps_its_end():
    rng = np.random.default_rng(10)
    truth = rng.random(20_000) < 0.2
    scores = (rng.random(20_000) + 0.4 * truth).astype(np.float32)
    full, thin = metrics.curve(truth, scores), metrics.curve(truth, scores, 100)
    assert len(thin.threshold) <= 130
    assert np.isin(thin.threshold, full.threshold).all()
    assert thin.efficiency[-1] == thin.false_positive_rate[-1] == 1.0
    assert np.abs(np.diff(thin.efficiency)).max() < 0.03


def test_reliability_of_calibrated_scores_lies_on_the_diagonal():
    rng = np.random.default_rng(1)
    scores = np.zeros((200_000, 6), np.float32)
    scores[:, 0] = rng.random(200_000)
    pdg = np.where(rng.random(200_000) < scores[:, 0], 211, 11).astype(np.int32)
    reliability = Reliability()
    for part in np.array_split(np.arange(200_000), 3):
        reliability.add(pdg[part], scores[part])
    diagram = reliability.diagram(0)
    pulls = (diagram["fraction"] - diagram["certainty"]) / np.sqrt(0.25 / diagram["n"])
    assert np.abs(pulls).max() < 4
    assert reliability.expected_calibration_error(0) < 0.01
    overconfident = Reliability()
    overconfident.add(pdg, np.where(scores > 0.5, np.float32(1), scores))
    assert overconfident.expected_calibration_error(0) == pytest.approx(0.125, abs=0.01)


def test_reliability_without_tracks_is_undefined():
    assert np.isnan(Reliability().expected_calibration_error(2))


def kaon_selections(rng, size):
    """Two correlated selections of kaons, the second better, and their joint counts."""
    pdg = rng.choice([211, 321], size, p=[0.8, 0.2]).astype(np.int32)
    kaon = pdg == 321
    first = np.zeros((size, 6), bool)
    second = np.zeros((size, 6), bool)
    first[:, 1] = rng.random(size) < np.where(kaon, 0.85, 0.05)
    second[:, 1] = np.where(rng.random(size) < 0.9, first[:, 1], kaon)
    paired = PairedCounts((0.0, 5.0))
    paired.add(pdg, np.ones(size, np.float32), first, second)
    return kaon, first, second, paired.values[1].sum(axis=0)


def test_f1_ratio_and_its_interval():
    rng = np.random.default_rng(2)
    size = 20_000
    kaon, first, second, cells = kaon_selections(rng, size)
    ratio = f1_ratio(cells, seed=4)
    exact = [sk.f1_score(kaon, each[:, 1]) for each in (first, second)]
    assert ratio.value == pytest.approx(exact[0] / exact[1])
    assert ratio.low < ratio.value < ratio.high < 1
    # The bootstrap of counts is the bootstrap of tracks.
    draws = []
    for _ in range(300):
        rows = rng.integers(0, size, size)
        draws.append(sk.f1_score(kaon[rows], first[rows, 1]) / sk.f1_score(kaon[rows], second[rows, 1]))
    assert (ratio.high - ratio.low) / 2 == pytest.approx(np.std(draws), rel=0.2)


@pytest.mark.parametrize(
    ("name", "score"), [("purity", sk.precision_score), ("efficiency", sk.recall_score), ("f1", sk.f1_score)]
)
def test_differences_are_those_of_the_bootstrap_of_tracks(name, score):
    rng = np.random.default_rng(3)
    size = 20_000
    kaon, first, second, cells = kaon_selections(rng, size)
    found = differences(cells, seed=4)[name]
    assert found.value == pytest.approx(score(kaon, first[:, 1]) - score(kaon, second[:, 1]))
    assert found.low < found.value < found.high
    draws = []
    for _ in range(300):
        rows = rng.integers(0, size, size)
        draws.append(score(kaon[rows], first[rows, 1]) - score(kaon[rows], second[rows, 1]))
    assert (found.high - found.low) / 2 == pytest.approx(np.std(draws), rel=0.2)
    assert found.significance == pytest.approx(found.value / np.std(draws), rel=0.2)
    assert found.significance < -5


def test_alike_selections_do_not_differ():
    cells = np.zeros((2, 2, 2), np.int64)
    cells[1, 1, 1], cells[0, 0, 0], cells[0, 1, 1] = 50, 900, 30
    assert {(d.value, d.low, d.high, d.significance) for d in differences(cells, 1).values()} == {(0, 0, 0, 0)}


def test_significance_is_that_of_a_standard_normal_where_two_selections_are_equally_good():
    rng = np.random.default_rng(5)
    found = []
    for _ in range(200):
        truth = rng.random(4000) < 0.2
        first, second = (rng.random(4000) < np.where(truth, 0.8, 0.1) for _ in range(2))
        cells = np.bincount(4 * truth + 2 * first + second, minlength=8).reshape(2, 2, 2)
        found.append(differences(cells, 1)["f1"].significance)
    assert np.std(found) == pytest.approx(1, abs=0.15)
    assert np.mean(found) == pytest.approx(0, abs=0.25)


def test_differences_without_anything_are_undefined():
    assert np.isnan(differences(np.zeros((2, 2, 2), np.int64), 1)["f1"].significance)
    cells = np.zeros((2, 2, 2), np.int64)
    cells[1, 0, 1] = 100  # the first selects nothing: its purity is undefined
    assert np.isnan(differences(cells, 1)["purity"].value)
    assert differences(cells, 1)["efficiency"].value == -1


def test_f1_ratio_without_anything_is_undefined():
    cells = np.zeros((2, 2, 2), np.int64)
    assert np.isnan(f1_ratio(cells, 1).value)
    cells[0, 0, 0] = 100
    assert np.isnan(f1_ratio(cells, 1).value)
