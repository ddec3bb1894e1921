import numpy as np
import pytest
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score

from pidml import tracks
from pidml.errors import MissingColumn, SpecError
from pidml.simulation import generate_tracks, likelihood, log_likelihood, mixture, posterior, response
from pidml.species import TARGETS

NO_LIMITS = tracks.MomentumLimits(tof=0.0, trd=0.0)
DEFAULT = tracks.MomentumLimits()


def without(*names):
    return tuple(name for name in tracks.FEATURES if name not in names)


SETTINGS = {
    "published features": (tracks.FEATURES, DEFAULT),
    "no momentum limits": (tracks.FEATURES, NO_LIMITS),
    "high momentum limits": (tracks.FEATURES, tracks.MomentumLimits(tof=0.9, trd=1.3)),
    "TRD limit below TOF limit": (tracks.FEATURES, tracks.MomentumLimits(tof=1.0, trd=0.6)),
    "with TRD signal": ((*tracks.FEATURES, "fTRDSignal"), DEFAULT),
    "TRD signal alone for TRD": ((*without("fTRDPattern"), "fTRDSignal"), NO_LIMITS),
    "no TRD": (without("fTRDPattern"), NO_LIMITS),
    "no TOF": (without("fTOFSignal", "fBeta"), NO_LIMITS),
    "TOF time without β": (without("fBeta"), DEFAULT),
    "β without TOF time": (without("fTOFSignal"), DEFAULT),
    "no TPC": (without("fTPCSignal"), DEFAULT),
    "reference point instead of distances": (without("fDcaXY", "fDcaZ"), DEFAULT),
    "neither distances nor reference point": (without("fDcaXY", "fDcaZ", "fX", "fY", "fZ"), DEFAULT),
    "no charge": (without("fSign"), NO_LIMITS),
}


@pytest.fixture(scope="module")
def sample():
    return generate_tracks(100_000, seed=11)


def seen(sample, limits):
    """Return the columns as a network gets them, and each track's species."""
    columns = {name: values.copy() for name, values in sample.columns.items()}
    tracks.apply_momentum_limits(columns, columns["fP"], limits)
    return columns, sample.truth["species"]


def binned_pvalue(bins, probability, truth):
    """Return the p-value of the true counts in bins of anything visible; χ² with the posterior's own variance."""
    expected, observed = np.bincount(bins, probability), np.bincount(bins, truth)
    variance = np.bincount(bins, probability * (1 - probability))
    kept = variance > 4
    square = ((observed - expected)[kept] ** 2 / variance[kept]).sum()
    return stats.chi2.sf(square, kept.sum()) if kept.any() else 1.0


def calibration_pvalue(probability, truth):
    """Return the p-value of the truth in bins of the posterior."""
    edges = [1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]
    return binned_pvalue(np.searchsorted(edges, probability), probability, truth)


def visible_bins(columns):
    """Yield bins of what a network sees: in each of them, the true number of a species must be the expected one.

    A posterior that is wrong in any of its terms can be calibrated on average, but not in all of these.
    """
    p, pt = columns["fP"].astype(float), columns["fPt"].astype(float)
    momentum = np.searchsorted([0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0], pt)
    yield momentum
    sector = np.floor((np.arctan2(columns["fPy"], columns["fPx"]) * 9 / np.pi % 1) * 10).astype(int)
    yield 12 * sector + momentum
    pulls = np.linspace(-5, 5, 21)
    late = (1 / columns["fBeta"].astype(float) - 1) * response.path_length(pt, p, response.TOF_RADIUS) / response.LIGHT
    for mass in np.unique(mixture.MASS):
        tpc = columns["fTPCSignal"] / response.tpc_expected(p, mass) - 1
        yield 30 * momentum + np.searchsorted(0.07 * pulls, tpc)
        delay = late - response.path_length(pt, p, response.TOF_RADIUS) / response.LIGHT * (np.hypot(1, mass / p) - 1)
        tof = np.where(np.isnan(delay), 25, np.searchsorted(90 * pulls, delay))
        yield 30 * momentum + tof
        yield 30 * np.searchsorted(0.07 * pulls, tpc) + tof
    (xy, z), _ = response.dca_widths(pt)
    for width, distance in ((xy, columns["fDcaXY"]), (z, columns["fDcaZ"])):
        yield 20 * momentum + np.searchsorted([1, 2, 3, 4, 5, 6, 8, 12, 20, 50, 100], np.abs(distance) / width)


def smallest_pvalue(columns, probability, species):
    """Return the smallest p-value of :func:`visible_bins` and of the posterior itself, times the number of tests."""
    pvalues = [calibration_pvalue(probability[:, s], species == s) for s in range(probability.shape[1])]
    for bins in visible_bins(columns):
        pvalues += [binned_pvalue(bins, probability[:, s], species == s) for s in range(probability.shape[1])]
    return min(pvalues) * len(pvalues)


@pytest.mark.parametrize("setting", SETTINGS)
def test_posterior_is_calibrated_for_every_species_and_missing_pattern(sample, setting):
    features, limits = SETTINGS[setting]
    columns, species = seen(sample, limits)
    columns = {name: columns[name] for name in {*features, "fPx", "fPy", "fPz"}}
    probability = posterior(columns, features, limits, all_species=True)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-9)
    pattern = tracks.missing_pattern(columns)
    pvalues = [calibration_pvalue(probability[:, s], species == s) for s in range(probability.shape[1])]
    pvalues += [
        calibration_pvalue(probability[pattern == missing, s], species[pattern == missing] == s)
        for s in range(len(TARGETS))
        for missing in np.unique(pattern)
    ]
    assert min(pvalues) > 1e-3 / len(pvalues)


@pytest.mark.parametrize("limits", [DEFAULT, NO_LIMITS])
def test_posterior_is_right_wherever_one_looks(limits):
    big = generate_tracks(200_000, seed=12)
    columns, species = seen(big, limits)
    assert smallest_pvalue(columns, posterior(columns, limits=limits, all_species=True), species) > 1e-2


def scaled(module, name, factor):
    """Return what to patch to multiply a function or an array of the simulation by ``factor``."""
    original = getattr(module, name)
    return module, name, (lambda *args: factor * original(*args)) if callable(original) else factor * original


#: Parameter of the simulation → relative change that the sample below can tell from the truth.
PARAMETERS = {
    "TPC signal": (response, "tpc_expected", 0.01),
    "TPC resolution": (response, "_TPC_RESOLUTION", 0.05),
    "TOF resolution": (response, "tof_resolution", 0.25),
    "mismatches": (response, "mismatch_probability", 0.5),
    "decay": (response, "DECAY_RATE", 0.3),
    "absorption": (response, "ABSORPTION", 0.5),
    "temperature": (mixture, "_TEMPERATURE", 0.05),
    "power": (mixture, "_POWER", 0.2),
    "secondaries": (mixture, "_SECONDARY_SIZE", 0.2),
    "distance of secondaries": (response, "_SECONDARY_Z", 0.6),
    "TRD signal width": (response, "TRD_SIGNAL_WIDTH", 0.15),
}


@pytest.mark.slow
@pytest.mark.parametrize("parameter", PARAMETERS)
def test_no_change_of_a_parameter_improves_the_posterior(sample, monkeypatch, parameter):
    columns, species = seen(sample, NO_LIMITS)
    features = (*tracks.FEATURES, "fTRDSignal")

    def log_score():
        mixture._tables.cache_clear()
        decay = (response.DECAY_RATE, response.ABSORPTION, response.ABSORPTION_SLOW)
        monkeypatch.setattr(likelihood, "_DECAY", decay)
        probability = posterior(columns, features, NO_LIMITS, all_species=True)
        return np.log(probability[np.arange(len(species)), species])

    module, name, change = PARAMETERS[parameter]
    exact, more_or_less = log_score(), []
    for factor in (1 - change, 1 + change):
        with monkeypatch.context() as patch:
            patch.setattr(*scaled(module, name, factor))
            more_or_less.append(log_score())
    mixture._tables.cache_clear()
    # At the truth the score, a derivative by the parameter, vanishes; changes to both sides make the posterior worse.
    score = more_or_less[1] - more_or_less[0]
    loss = exact - 0.5 * (more_or_less[0] + more_or_less[1])
    assert abs(score.mean()) < 4 * score.std() / np.sqrt(len(score)) + 0.5 * loss.mean()
    assert loss.mean() > 3 * loss.std() / np.sqrt(len(loss))


def test_values_hidden_by_the_limits_do_not_matter(sample):
    columns, _ = seen(sample, DEFAULT)
    np.testing.assert_array_equal(posterior(sample.columns), posterior(columns))


def test_more_information_is_never_worse(sample):
    columns, species = seen(sample, DEFAULT)

    def log_loss(features, limits=DEFAULT):
        probability = posterior(columns, features, limits, all_species=True)
        return -np.log(probability[np.arange(len(species)), species])

    full = log_loss(tracks.FEATURES)
    for features in (without("fBeta"), without("fTPCSignal"), without("fTRDPattern"), without("fDcaXY", "fY")):
        gain = log_loss(features) - full
        assert gain.mean() > -3 * gain.std() / np.sqrt(len(gain))
    gain = full - log_loss((*tracks.FEATURES, "fTRDSignal"))
    assert gain.mean() > 5 * gain.std() / np.sqrt(len(gain))


def best_f1(probability, truth):
    order = np.argsort(-probability)
    hits = np.cumsum(truth[order])
    return np.max(2 * hits / (np.arange(1, len(hits) + 1) + truth.sum()))


def test_best_possible_f1_is_like_the_published_simulation(sample):
    columns, species = seen(sample, DEFAULT)
    probability = posterior(columns)
    f1 = {s.name: best_f1(probability[:, i], species == i) for i, s in enumerate(TARGETS)}
    for name, (low, high) in {"pion": (0.975, 0.995), "kaon": (0.85, 0.93), "proton": (0.93, 0.98)}.items():
        assert low < f1[name] < high
        assert low - 0.02 < f1[f"anti{name}"] < high


def test_posterior_beats_gradient_boosted_trees():
    train, test = (generate_tracks(size, seed) for size, seed in ((50_000, 21), (100_000, 22)))
    (train_columns, train_species), (columns, species) = (seen(sample, DEFAULT) for sample in (train, test))
    # Classes: the six targets, and one for everything else.
    train_class, truth = (np.minimum(values, len(TARGETS)) for values in (train_species, species))
    model = HistGradientBoostingClassifier(max_iter=40, learning_rate=0.2, random_state=0)
    model.fit(np.column_stack([train_columns[name] for name in tracks.FEATURES]), train_class)
    learnt = model.predict_proba(np.column_stack([columns[name] for name in tracks.FEATURES]))
    exact = posterior(columns, all_species=True)
    exact = np.column_stack([exact[:, : len(TARGETS)], exact[:, len(TARGETS) :].sum(axis=1)])
    row = np.arange(len(truth))
    gain = np.log(exact[row, truth]) - np.log(np.maximum(learnt[row, truth], 1e-12))
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain))
    for index in range(len(TARGETS)):
        mine, theirs = (f1_score(truth == index, p[:, index] > 0.5) for p in (exact, learnt))
        assert mine > theirs - 2 / np.sqrt((truth == index).sum()) * (1 - theirs)
    assert f1_score(truth, learnt.argmax(axis=1), average="macro") > 0.6  # the trees did learn


def test_likelihood_of_the_wrong_charge_is_zero(sample):
    columns, _ = seen(sample, DEFAULT)
    log = log_likelihood({name: values[:1000] for name, values in columns.items()})
    assert log.shape == (1000, 10)
    wrong = columns["fSign"][:1000, None] * mixture.SIGN < 0
    assert np.all(np.isneginf(log[wrong]))
    assert np.all(np.isfinite(log[~wrong]))


def test_outlandish_tracks_still_get_probabilities():
    columns = {name: values[:4].copy() for name, values in generate_tracks(100, 1).columns.items()}
    columns["fTPCSignal"][0] = 5000
    columns["fBeta"][1], columns["fTOFSignal"][1] = 0.05, 1e6
    columns["fPx"][2], columns["fPy"][2], columns["fBeta"][2], columns["fTOFSignal"][2] = 0.1, 0.1, 0.9, 15_000
    columns["fDcaXY"][3], columns["fSign"][3] = 50, 0
    for limits in (DEFAULT, NO_LIMITS):
        probability = posterior(columns, limits=limits, all_species=True)
        assert np.all(np.isfinite(probability))
        np.testing.assert_allclose(probability.sum(axis=1), 1)


def test_errors_name_what_is_missing():
    columns = dict(generate_tracks(10, 1).columns)
    with pytest.raises(SpecError, match="fix the momentum"):
        posterior(columns, ("fTPCSignal",))
    del columns["fTPCSignal"]
    with pytest.raises(MissingColumn, match="fTPCSignal"):
        posterior(columns)
