import json

import numpy as np
import pytest
from support.prepared_data import write_prepared

from pidml import species
from pidml.data.prepared import PreparedDataset
from pidml.evaluation.bayes import bayesian, estimated_prior
from pidml.evaluation.nsigma import nsigma_selection
from pidml.evaluation.optimum import exact_posterior
from pidml.evaluation.thresholds import best_f1_threshold
from pidml.spec.model_sections import Evaluation

EDGES = Evaluation().pt_edges


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data = write_prepared(tmp_path_factory.mktemp("bayes") / "data", (60_000, 2_000, 30_000))
    (data.path / "meta.json").write_text(json.dumps(data.meta | {"likelihood_known": True}))
    return PreparedDataset.open(data.path)


def test_priors_are_found_without_labels():
    rng = np.random.default_rng(1)
    share, centre = np.array([0.8, 0.15, 0.05]), np.array([0.0, 1.5, 4.0])
    truth = rng.choice(3, 200_000, p=share)
    signal = centre[truth] + rng.standard_normal(len(truth))
    likelihood = np.exp(-0.5 * (signal[:, None] - centre) ** 2)
    np.testing.assert_allclose(estimated_prior(likelihood), share, atol=0.01)
    np.testing.assert_allclose(estimated_prior(likelihood[:0]), 1 / 3)


def test_priors_of_the_simulation_are_near_its_abundances(prepared):
    made, train = bayesian(prepared, EDGES), prepared.split("train")
    assert made.hypotheses == ("El", "Mu", "Pi", "Ka", "Pr")
    np.testing.assert_allclose(made.priors.sum(axis=2), 1, atol=1e-6)
    pt, pdg = train.column("fPt"), np.asarray(train.pdg)
    inside = (pt >= 0.5) & (pt < 0.6)
    for charge, sign in ((0, -1), (1, 1)):
        own = pdg[inside & (train.column("fSign") * sign > 0)]
        prior = dict(zip(made.hypotheses, made.priors[charge, EDGES.index(0.5)], strict=True))
        assert prior["Ka"] == pytest.approx(np.mean(np.abs(own) == 321), abs=0.02)
        assert prior["Pr"] == pytest.approx(np.mean(np.abs(own) == 2212), abs=0.02)


def test_it_is_better_than_nsigma_and_worse_than_the_optimum(prepared):
    test, made = prepared.split("test"), bayesian(prepared, EDGES)
    whole = slice(0, len(test))
    probability = made.predict(test, whole)
    selection = nsigma_selection(prepared, Evaluation())
    deviations = selection.deviations(test, whole)
    exact = exact_posterior(prepared)[0].predict(np.asarray(test.features))
    for position, target in enumerate(species.TARGETS):
        truth = np.asarray(test.pdg) == target.pdg
        f1 = best_f1_threshold(truth, np.ascontiguousarray(probability[:, position]))[1]
        chosen = deviations[:, position] < selection.limit
        assert f1 > 2 * (truth & chosen).sum() / (truth.sum() + chosen.sum())
        assert f1 < 1.005 * best_f1_threshold(truth, np.ascontiguousarray(exact[:, position]))[1]
        assert probability[:, position].mean() == pytest.approx(truth.mean(), abs=0.02)


def test_probabilities_are_probabilities_and_know_the_charge(prepared):
    test, made = prepared.split("test"), bayesian(prepared, EDGES)
    probability = made.predict(test, slice(0, len(test)))
    assert probability.dtype == np.float32
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (probability.sum(axis=1) <= 1 + 1e-5).all()
    positive = test.column("fSign") > 0
    assert (probability[positive, 3:] == 0).all()
    assert (probability[~positive, :3] == 0).all()
    np.testing.assert_array_equal(made.predict(test, slice(100, 200)), probability[100:200])


def with_columns(source, path, columns):
    """Copy a dataset with other aux columns (name → values from the number of tracks)."""
    path.mkdir()
    for name in ("train", "validation", "test"):
        split = source.split(name)
        (path / name).mkdir()
        np.save(path / name / "features.npy", split.features)
        np.save(path / name / "pdg.npy", split.pdg)
        table = np.stack([np.broadcast_to(make(len(split)), len(split)) for make in columns.values()], axis=1)
        np.save(path / name / "aux.npy", table.astype(np.float32))
    (path / "meta.json").write_text(json.dumps(source.meta | {"aux": list(columns)}))
    return PreparedDataset.open(path)


def constant(value):
    return lambda _: np.float32(value)


def test_columns_of_the_table_are_combined_over_the_detectors_that_saw_the_track(prepared, tmp_path):
    columns = {"fP": constant(1.0), "fPt": constant(0.9), "fSign": constant(1.0), "fTPCNSigmaPi": constant(0.0)}
    columns |= {"fTPCNSigmaKa": constant(1.0), "fTPCNSigmaPr": constant(40.0)}
    columns["fTOFNSigmaPi"] = lambda size: np.where(np.arange(size) % 2, 2.0, -999.0)
    columns["fTOFNSigmaKa"] = lambda size: np.where(np.arange(size) % 2, 0.0, np.nan)
    columns["fTOFNSigmaPr"] = lambda size: np.where(np.arange(size) % 2, 0.0, np.nan)
    data = with_columns(prepared, tmp_path / "columns", columns)
    made = bayesian(data, (0.0, 5.0))
    assert made.hypotheses == ("Pi", "Ka", "Pr")
    prior = made.priors[1, 0]
    probability = made.predict(data.split("test"), slice(0, 2))
    for row, exponents in enumerate(([0.0, -0.5, -12.5], [-2.0, -0.5, -12.5])):  # 40 σ count as 5 σ
        expected = prior * np.exp(exponents)
        np.testing.assert_allclose(probability[row, :3], expected / expected.sum(), rtol=1e-4)


def test_it_is_left_out_where_nsigma_cannot_be_had(prepared, tmp_path):
    assert bayesian(with_columns(prepared, tmp_path / "bare", {"fP": constant(1.0)}), EDGES) is None
    few = write_prepared(tmp_path / "few", (2_000, 10, 10), keep_pdg=(211, -211))
    assert bayesian(few, EDGES) is None
