"""A TPC response is learned from simulation and compared with the response that made the simulation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.prepared_data import write_prepared
from support.tpc_tables import RESOLUTION, departure, kinematics, write_departing

from pidml.data.prepared import PreparedDataset, Scaling
from pidml.errors import MissingColumn, NoLabels, NoTracks, SpecError, SpeciesAbsent, TrainingError
from pidml.report import write_report
from pidml.response import TpcResponse, fit_response, load_response, save_response, train_tpc_response
from pidml.response.fit import ResponseFit
from pidml.response.pulls import pull_of
from pidml.simulation import response as truth
from pidml.spec import JobSpec
from pidml.spec.job import parse_job
from pidml.spec.response_section import Response
from pidml.species import by_name

pytestmark = pytest.mark.usefixtures("one_thread")

HADRONS = ("pion", "kaon", "proton")
SHORT = Response(species=HADRONS)


@pytest.fixture(scope="module")
def departing(tmp_path_factory) -> PreparedDataset:
    return write_departing(tmp_path_factory.mktemp("data") / "set", (60_000, 30_000, 10))


@pytest.fixture(scope="module")
def fitted(departing) -> ResponseFit:
    torch.set_num_threads(1)
    return fit_response(departing, SHORT, seed=3)


def known(prepared: PreparedDataset, name: str) -> torch.Tensor:
    return torch.nan_to_num(torch.from_numpy(prepared.scaling.apply(np.asarray(prepared.split(name).features))))


def own(prepared: PreparedDataset, response: TpcResponse, name: str, species: str):
    """Return expectation, resolution and nσ of a sample's tracks of one species under its own hypothesis."""
    rows = np.abs(prepared.split(name).pdg) == by_name(species).pdg
    standardised, index = known(prepared, name)[rows], response.species.index(species)
    expected, width = (values[:, index].numpy() for values in response.expected(standardised))
    return rows, expected, width, response.nsigma(standardised)[:, index].numpy()


@pytest.mark.parametrize("species", HADRONS)
def test_expectation_and_resolution_are_those_of_the_simulation(departing, fitted, species):
    rows, expected, width, _ = own(departing, fitted.response, "validation", species)
    momentum, slope, sign = (values[rows] for values in kinematics(departing.split("validation")))
    true = truth.tpc_expected(momentum, np.array(by_name(species).mass)) * departure(momentum, slope, sign)
    low, high = np.quantile(momentum, [0.05, 0.95])
    bulk = (momentum > low) & (momentum < high)
    error = np.abs(expected / true - 1)[bulk]
    assert np.median(error) < {"pion": 0.003}.get(species, 0.008)
    assert np.quantile(error, 0.95) < {"pion": 0.01}.get(species, 0.02)
    assert np.median(width / true) == pytest.approx(RESOLUTION, rel={"pion": 0.04}.get(species, 0.1))


@pytest.mark.parametrize("species", HADRONS)
def test_pulls_of_other_tracks_have_mean_0_and_width_1(departing, fitted, species):
    *_, pulls = own(departing, fitted.response, "validation", species)
    pull = pull_of(pulls)
    assert abs(pull.bias) < 3 * np.hypot(pull.bias_error, 0.03)
    assert abs(pull.width - 1) < 3 * np.hypot(pull.width_error, 0.03)
    assert pull.outliers < 1e-3


def test_errors_of_bias_and_width_cover():
    rng = np.random.default_rng(5)
    found = [pull_of(rng.standard_normal(400).astype(np.float32)) for _ in range(600)]
    assert np.std([each.bias for each in found]) == pytest.approx(np.mean([each.bias_error for each in found]), rel=0.1)
    assert np.std([each.width for each in found]) == pytest.approx(
        np.mean([each.width_error for each in found]), rel=0.1
    )
    assert pull_of(np.zeros(5, np.float32)) is None


def test_nsigma_is_the_distance_from_the_expectation_in_resolutions(departing, fitted):
    standardised = known(departing, "validation")[:500]
    expected, width = fitted.response.expected(standardised)
    signal = torch.tensor(departing.split("validation").features[:500, :1])
    torch.testing.assert_close((signal - expected) / width, fitted.response.nsigma(standardised), rtol=1e-4, atol=1e-4)


def test_outliers_do_not_widen_the_resolution(tmp_path):
    spoilt = write_departing(tmp_path / "set", (25_000, 10, 10), outliers=0.1)
    widths = {}
    for outliers in (0.0, 0.1):
        fit = fit_response(spoilt, Response(batch_size=256, species=("pion",), outliers=outliers), seed=1)
        log_width = fit.response.learned(fit.check.network_inputs)[1]
        widths[outliers] = float(log_width.exp().median())
    assert widths[0.1] == pytest.approx(RESOLUTION, rel=0.06)
    assert widths[0.0] > 1.3 * RESOLUTION


def test_only_the_training_sample_is_read_and_the_seed_decides(departing, fitted, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(departing.path, alone)
    shutil.rmtree(alone / "validation")
    shutil.rmtree(alone / "test")
    again = fit_response(PreparedDataset.open(alone), SHORT, seed=3)
    standardised = known(departing, "validation")[:200]
    assert torch.equal(again.response.nsigma(standardised), fitted.response.nsigma(standardised))
    other = fit_response(PreparedDataset.open(alone), SHORT, seed=4)
    assert not torch.equal(other.response.nsigma(standardised), fitted.response.nsigma(standardised))


def test_what_was_saved_is_loaded(departing, fitted, tmp_path):
    save_response(tmp_path, fitted.response, departing.scaling)
    standardised = known(departing, "validation")[:200]
    loaded = load_response(tmp_path, departing.scaling)
    assert torch.equal(loaded(standardised), fitted.response(standardised))
    assert list(loaded.parameters()) == []
    scaling = departing.scaling
    other = Scaling(scaling.names, scaling.mean + 1, scaling.std, scaling.standardised)
    with pytest.raises(TrainingError, match="another scaling"):
        load_response(tmp_path, other)
    with pytest.raises(TrainingError, match="no TPC response"):
        load_response(tmp_path / "nowhere", scaling)


def test_files_and_metrics(departing, tmp_path):
    job = JobSpec(response=Response(epochs=2))
    summary = train_tpc_response(departing, job, tmp_path)
    assert summary.species == ("electron", "muon", *HADRONS)
    record = json.loads((tmp_path / "response_metrics.json").read_text())
    assert record["species"]["pion"]["pull"]["width"] == summary.width["pion"]
    assert record["inputs"] == ["ln p", "pz/pT", "fSign", "fTPCNClsShared"]
    tracks = record["tracks"]
    assert tracks["check"] + tracks["calibration"] == pytest.approx(0.2 * sum(tracks.values()), abs=2)
    drawn = {plot["file"] for plot in record["plots"]}
    assert drawn == {path.name for path in tmp_path.glob("*.png")}
    assert len(drawn) == 5
    lines = (tmp_path / "response_history.csv").read_text().splitlines()
    assert lines[0] == "epoch,train_loss,held_out_loss"
    assert len(lines) == 3
    bins = record["species"]["pion"]["pull_vs_p"]
    assert len(bins) == len(record["momentum_edges"]) - 1
    assert sum(each["tracks"] for each in bins if each) <= record["species"]["pion"]["pull"]["tracks"]
    write_report(tmp_path / "report.html", job, {"TrainTPCResponse": tmp_path})
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure") == 5
    assert f"{record['species']['kaon']['pull']['width']:.3f} <span" in page


def test_leptons_without_examples_are_left_out_and_hadrons_are_an_error(tmp_path, caplog):
    data = write_prepared(tmp_path / "a", (8000, 10, 10), keep_pdg=(211, -211, 321, -321, 2212, -2212, 13))
    fit = fit_response(data, Response(epochs=1), seed=1)
    assert "electron" not in fit.response.species
    assert fit.examples["electron"] == 0
    assert "electron: 0 tracks are too few" in caplog.text
    data = write_prepared(tmp_path / "b", (3000, 10, 10), keep_pdg=(211, -211))
    with pytest.raises(SpeciesAbsent, match=r"0 tracks of kaon.*200 are needed"):
        fit_response(data, Response(), seed=1)
    assert fit_response(data, Response(species=("pion",), epochs=1), seed=1).response.species == ("pion",)


@pytest.mark.parametrize("name", ["fSign", "fTPCNClsShared", "fTPCSignal", "fPz"])
def test_an_ingredient_that_all_tracks_lack_is_named(tmp_path, name):
    data = spoilt(write_prepared(tmp_path / "set", (3000, 10, 10)), name, slice(None))
    with pytest.raises(NoTracks, match=f"{name} missing for all .* tracks that the TPC response is learned from") as e:
        fit_response(data, Response(), seed=1)
    assert f"leave {name} out of preparation.features" in e.value.hint


def test_tracks_that_lack_an_ingredient_are_no_examples(tmp_path):
    data = spoilt(write_prepared(tmp_path / "set", (9000, 10, 10)), "fSign", slice(0, 8900))
    with pytest.raises(SpeciesAbsent, match=r"tracks of pion that lack nothing.*missing values: fSign 99%"):
        fit_response(data, Response(species=("pion",)), seed=1)


def test_leptons_alone_without_examples_are_an_error(tmp_path):
    data = write_prepared(tmp_path / "set", (3000, 10, 10), keep_pdg=(211, -211))
    with pytest.raises(SpeciesAbsent, match=r"0 tracks of electron that lack nothing.*200 are needed"):
        fit_response(data, Response(species=("electron",)), seed=1)


def test_no_hypothesis_at_all_is_refused():
    with pytest.raises(SpecError, match=r"response\.species"):
        parse_job({"response": {"species": []}}, "test")


def spoilt(prepared: PreparedDataset, name: str, rows: slice) -> PreparedDataset:
    path = prepared.path / "train" / "features.npy"
    features = np.load(path)
    features[rows, prepared.features.index(name)] = np.nan
    np.save(path, features)
    return prepared


def emptied(prepared: PreparedDataset) -> PreparedDataset:
    for name in ("features", "pdg", "aux"):
        path = prepared.path / "train" / f"{name}.npy"
        np.save(path, np.load(path)[:0])
    return prepared


def test_data_without_labels_or_columns_is_named(tmp_path: Path):
    data = write_prepared(tmp_path / "data", (500, 10, 10), simulation=False)
    with pytest.raises(NoLabels, match="no labels"):
        fit_response(data, Response(), seed=1)
    for number, features in enumerate((("fP", "fBeta"), ("fTPCSignal", "fPx", "fBeta"))):
        lacking = write_prepared(tmp_path / str(number), (9000, 10, 10), features=features)
        with pytest.raises(MissingColumn, match="tpc_nsigma needs fTPCSignal and fP"):
            fit_response(lacking, Response(), seed=1)
    with pytest.raises(NoTracks):
        fit_response(emptied(write_prepared(tmp_path / "none", (10, 10, 10))), Response(), seed=1)


def test_momentum_alone_is_enough(tmp_path):
    data = write_prepared(tmp_path / "data", (9000, 10, 10), features=("fTPCSignal", "fP"))
    fit = fit_response(data, Response(epochs=1, species=HADRONS), seed=1)
    assert not fit.response.has_angle
    assert torch.isnan(fit.check.slope).all()
    assert torch.isfinite(fit.response.nsigma(known(data, "train")[:50])).all()
