"""nσ columns inside the networks: every architecture, any missing values, the same numbers after export."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_training import small_job
from support.tpc_tables import write_departing

from pidml.errors import SpecError, TrainingError
from pidml.evaluation.paired import PairedCounts, differences
from pidml.export import export_bundle
from pidml.export.onnx_files import write_onnx
from pidml.export.verify import check_sample, session
from pidml.models import Inputs, build
from pidml.response import TpcResponse, fit_response
from pidml.spec import JobSpec, load_job
from pidml.spec.job import parse_job
from pidml.spec.model_sections import Export, Model
from pidml.spec.response_section import Response
from pidml.species import TARGET_NAMES
from pidml.tracks import FEATURES
from pidml.training import load_classifier, train

torch.set_num_threads(1)
SPECS = {
    "masked-mlp": Model(architecture="masked-mlp", hidden=(24, 16)),
    "ensemble": Model(architecture="ensemble", hidden=(12, 10)),
    "mlp": Model(architecture="mlp", hidden=(24, 16)),
    "attention": Model(architecture="attention", embed_hidden=(20,), d_model=16, ff_hidden=16, pool_hidden=(10,)),
}
SIGNAL, P = FEATURES.index("fTPCSignal"), FEATURES.index("fP")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_departing(tmp_path_factory.mktemp("data") / "set", (12_000, 4000, 2000))


@pytest.fixture(scope="module")
def response(prepared) -> TpcResponse:
    return fit_response(prepared, Response(epochs=4, species=("pion", "kaon", "proton")), seed=1).response


def network(architecture, prepared, *derived):
    torch.manual_seed(1)
    net = build(SPECS[architecture], Inputs.of(prepared.scaling, derived), 6).eval()
    net.learn_inputs(tracks(prepared))
    return net


def tracks(prepared, size=500):
    return torch.from_numpy(prepared.scaling.apply(check_sample(prepared, size)))


def deriving(job: JobSpec) -> JobSpec:
    return job.model_copy(update={"dataset": job.dataset.model_copy(update={"derive": ("tpc_nsigma",)})})


@pytest.mark.parametrize("architecture", SPECS)
@settings(max_examples=15)
@given(pattern=st.lists(st.integers(0, 2 ** len(FEATURES) - 1), min_size=1, max_size=8))
def test_missing_values_in_any_mixture_and_outliers_give_finite_output(prepared, response, architecture, pattern):
    net, features = network(architecture, prepared, response), tracks(prepared, len(pattern))
    for row, bits in enumerate(pattern):
        hidden = [bool(bits >> index & 1) for index in range(len(FEATURES))]
        features[row, torch.tensor(hidden)] = torch.nan
    extremes = torch.tensor([0.0, 1e6, -1e6, 1e30, torch.nan])[:, None].expand(-1, len(FEATURES))
    features = torch.cat([features, extremes])
    with torch.no_grad():
        together = net(features)
        alone = torch.cat([net(row[None]) for row in features])
    assert torch.isfinite(together).all()
    torch.testing.assert_close(alone, together, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["masked-mlp", "ensemble", "attention"])
def test_columns_are_nsigma_and_0_where_an_ingredient_is_missing(prepared, response, architecture):
    net, features = network(architecture, prepared, response), tracks(prepared)
    columns = net.columns(features)[0][:, -3:]
    pulls = response.nsigma(torch.nan_to_num(features)) / 3
    torch.testing.assert_close(columns, pulls / (1 + pulls.abs()))
    assert (columns.abs() < 1).all()
    assert columns.std(dim=0).min() > 0.05
    for name in ("fTPCSignal", "fP", "fPz", "fSign"):
        hidden = features.clone()
        hidden[:, FEATURES.index(name)] = torch.nan
        assert (net.columns(hidden)[0][:, -3:] == 0).all()
    assert net.columns.token[-3:] == (SIGNAL,) * 3


@pytest.mark.parametrize("architecture", SPECS)
def test_the_response_is_constant_and_not_among_the_weights(prepared, response, architecture):
    plain, net = network(architecture, prepared), network(architecture, prepared, response)
    assert plain.state_dict().keys() == net.state_dict().keys()
    first_layer = 3 * next(iter(net.parameters())).shape[-1] * getattr(net, "experts", 1)
    assert net.parameter_count > plain.parameter_count
    assert net.parameter_count - plain.parameter_count <= max(first_layer, 3 * 24)
    before = response.state()["values"]
    net(tracks(prepared)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in response.state()["values"].items())


@pytest.mark.parametrize("architecture", SPECS)
def test_the_export_has_one_input_of_plain_features_and_equals_torch(prepared, response, architecture, tmp_path):
    module = torch.nn.Sequential(network(architecture, prepared, response), torch.nn.Sigmoid()).eval()
    write_onnx(module, len(FEATURES), tmp_path / "net.onnx", Export(), "test")
    opened = session(tmp_path / "net.onnx")
    (given_input,) = opened.get_inputs()
    assert given_input.shape == ["batch", len(FEATURES)]
    standardised = tracks(prepared, 3000)
    with torch.inference_mode():
        expected = module(standardised).numpy()
    for batch in (3000, 1):
        parts = [
            opened.run(None, {given_input.name: standardised[start : start + batch].numpy()})[0]
            for start in range(0, 3000, batch)
        ]
        assert np.abs(np.concatenate(parts) - expected).max() < 1e-5


def test_training_saves_loads_and_exports_what_it_was_given(prepared, response, tmp_path):
    (tmp_path / "trained").mkdir()
    job = deriving(small_job(max_epochs=1))
    train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path / "trained", derived=[response])
    classifier = load_classifier(tmp_path / "trained")
    features = np.asarray(prepared.split("test").features)
    (inside,) = classifier.module.parts[0].network.columns.derived
    standardised = torch.nan_to_num(torch.from_numpy(prepared.scaling.apply(features)))
    assert torch.equal(inside(standardised), response(standardised))
    summary = export_bundle([tmp_path / "trained"], prepared, job, tmp_path / "bundle")
    assert summary.largest_difference < 1e-5
    opened = ort.InferenceSession(tmp_path / "bundle" / "attention_model_0321.onnx")
    one = prepared.scaling.apply(features[:1])
    certainty = opened.run(None, {opened.get_inputs()[0].name: one})[0]
    np.testing.assert_allclose(certainty[:, 0], classifier.predict(features[:1])[:, 4], atol=1e-5)


def test_a_job_gets_what_it_asks_for(prepared, response, tmp_path):
    for job, derived in ((deriving(small_job()), []), (small_job(), [response])):
        with pytest.raises(TrainingError, match=r"dataset\.derive names"):
            train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path, derived=derived)


def test_another_response_is_another_fit(prepared, response, tmp_path):
    other = fit_response(prepared, Response(epochs=1, species=("pion", "kaon", "proton")), seed=2).response
    job = deriving(small_job(max_epochs=1))
    for number, derived in enumerate((response, other, other)):
        (tmp_path / str(number)).mkdir()
        summary = train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path / str(number), derived=[derived])
        assert summary.resumed_epochs == (number == 2)


@pytest.mark.slow
def test_the_classifier_is_not_worse_with_it(tmp_path):
    prepared = write_departing(tmp_path / "data", (60_000, 15_000, 60_000), seed=21)
    response = fit_response(prepared, Response(), seed=1).response
    plain = load_job("masked-mlp")
    short = {"max_epochs": 12, "patience": 12, "accelerator": "cpu"}
    plain = plain.model_copy(update={"training": plain.training.model_copy(update=short)})
    test, selected = prepared.split("test"), []
    for name, job, derived in (("plain", plain, []), ("derived", deriving(plain), [response])):
        out = tmp_path / name
        out.mkdir()
        summary = train(prepared, job, TARGET_NAMES, tmp_path / f"{name}.work", out, derived=derived)
        cuts = np.array([summary.thresholds[each] for each in TARGET_NAMES], np.float32)
        selected.append(load_classifier(out).predict(test.features) >= cuts)
    paired = PairedCounts([0.0, 100.0])
    paired.add(np.asarray(test.pdg), np.asarray(test.column("fPt")), selected[1], selected[0])
    for index, name in enumerate(TARGET_NAMES):
        difference = differences(paired.values[index].sum(axis=0), seed=1)["f1"]
        assert difference.significance > -3, name


@pytest.mark.parametrize("architecture", ["boosted-trees", "random-forest"])
def test_trees_derive_nothing(architecture):
    with pytest.raises(SpecError, match=f"dataset.derive is not possible with model.architecture = {architecture}"):
        parse_job({"model": {"architecture": architecture}, "dataset": {"derive": ["tpc_nsigma"]}}, "here")
