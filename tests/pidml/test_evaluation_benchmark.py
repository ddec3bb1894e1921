from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics as sk
from support.prepared_data import write_prepared

from pidml import simulation, species, tracks
from pidml.data.prepared import PreparedDataset
from pidml.errors import CorruptFile, NoLabels, NoTracks
from pidml.evaluation.benchmark import judge, read_thresholds, summary_lines
from pidml.evaluation.optimum import exact_posterior
from pidml.evaluation.working_points import chosen
from pidml.plots import comparison, performance
from pidml.report.collect import summary
from pidml.spec import JobSpec
from pidml.spec.thresholds_section import Thresholds


def mark_simulated(data: PreparedDataset) -> PreparedDataset:
    """Say in the dataset's meta that its likelihood is known."""
    (data.path / "meta.json").write_text(json.dumps(data.meta | {"likelihood_known": True}))
    return PreparedDataset.open(data.path)


def blurred(features):
    """Stand in for a trained network: the posterior without the distances to the vertex and β."""
    seen = ("fTPCSignal", "fTRDPattern", "fPx", "fPy", "fPz", "fSign")
    columns = {name: features[:, index] for index, name in enumerate(tracks.FEATURES)}
    return simulation.posterior(columns, seen).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return mark_simulated(write_prepared(tmp_path_factory.mktemp("benchmark") / "data", (30_000, 12_000, 15_000)))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    validation = data.split("validation")
    thresholds = chosen(Thresholds(), validation, blurred(np.asarray(validation.features))).thresholds
    return out, judge(data, blurred, thresholds, JobSpec(), out), thresholds


def test_numbers_are_those_of_sklearn(data, made):
    _, record, thresholds = made
    test = data.split("test")
    scores = blurred(np.asarray(test.features))
    pattern = tracks.feature_pattern(np.asarray(test.features), data.features)
    for position, target in enumerate(species.TARGETS):
        for name, mine in (("all", pattern >= 0), ("no-tof", pattern == 1)):
            truth, own = np.asarray(test.pdg)[mine] == target.pdg, scores[mine, position]
            overall = record["species"][target.name]["network"][name]["overall"]
            chosen = own >= np.float32(thresholds[position])
            assert overall["f1"] == pytest.approx(sk.f1_score(truth, chosen))
            assert overall["purity"] == pytest.approx(sk.precision_score(truth, chosen))
            assert overall["efficiency"] == pytest.approx(sk.recall_score(truth, chosen))
            assert overall["auc"] == pytest.approx(sk.roc_auc_score(truth, own))
            assert overall["f1_low"] < overall["f1"] < overall["f1_high"]


def test_optimum_beats_what_sees_less(made):
    _, record, _ = made
    for name in species.TARGET_NAMES:
        ratio = record["fraction_of_optimum"][name]
        assert ratio["low"] <= ratio["value"] <= ratio["high"]
        assert ratio["value"] < 1.005
        assert (ratio["significance"] > 0) == (ratio["value"] > 1)
        assert ratio["significance"] < 3
        own = record["species"][name]
        assert own["optimum"]["all"]["overall"]["auc"] > own["nsigma"]["all"]["overall"]["auc"]
    assert record["fraction_of_optimum"]["kaon"]["high"] < 0.97
    assert record["fraction_of_optimum"]["kaon"]["significance"] < -5


def test_optimum_is_exactly_calibrated(made):
    _, record, _ = made
    for name in species.TARGET_NAMES:
        assert record["methods"]["optimum"]["calibration"][name]["expected_calibration_error"] < 0.01


def test_written_files_agree_and_hold_no_nan(made):
    out, record, _ = made
    text = (out / "metrics.json").read_text()

    def refuse(constant):
        raise AssertionError(f"{constant} in JSON")

    assert json.loads(text, parse_constant=refuse) == json.loads(json.dumps(record))
    table = pd.read_csv(out / "metrics.csv")
    bins = len(JobSpec().evaluation.pt_edges) - 1
    assert bins == 19
    assert len(table) == 4 * 6 * 5 * (bins + 1)
    assert not table.duplicated(["method", "species", "selection", "pt_low"]).any()
    row = table.query("method == 'network' and species == 'kaon' and selection == 'all' and pt_low == 0.5").iloc[0]
    assert row["pt_high"] == 0.6
    assert row["purity"] == pytest.approx(record["species"]["kaon"]["network"]["all"]["bins"][4]["purity"], rel=1e-5)
    empty = table[(table["signal"] == 0) & (table["selected"] == 0)]
    assert len(empty)
    assert empty[["purity", "efficiency", "f1"]].isna().all(axis=None)
    assert record["species"]["kaon"]["network"]["complete"]["bins"][0]["efficiency"] is None


def test_plots_are_unique_readable_and_named_after_their_species(made):
    out, record, _ = made
    files = [plot["file"] for plot in record["plots"]]
    assert len(set(files)) == len(files) == len(list(out.glob("*.png"))) == 6 * 4 + 5
    for plot in record["plots"]:
        assert plot["file"].endswith(f"_{plot['species'] or 'all-species'}.png")
        with Image.open(out / plot["file"]) as image:
            image.load()
            assert min(image.size) > 400
        assert (out / plot["file"]).stat().st_size < 200_000
        assert plot["title"]
    assert not [path for path in out.iterdir() if path.suffix not in (".png", ".json", ".csv")]


def test_confusion_rows_add_up(made):
    _, record, _ = made
    own = record["methods"]["network"]["confusion"]
    highest = np.array(own["highest"])
    for row, name in enumerate(own["rows"][:-1]):
        assert highest[row].sum() == record["sample"]["species"][name]
    assert np.array(own["accepted"])[1, 1] == record["species"]["kaon"]["network"]["all"]["overall"]["true_positive"]


def test_same_input_gives_the_same_bytes(data, made, tmp_path):
    out, record, thresholds = made
    again = judge(data, blurred, thresholds, JobSpec(), tmp_path, draw=False)
    assert again | {"plots": record["plots"]} == record
    assert (out / "metrics.csv").read_bytes() == (tmp_path / "metrics.csv").read_bytes()
    comparison.summary(record, tmp_path / "summary.png")
    assert (tmp_path / "summary.png").read_bytes() == (out / "benchmark_summary_all-species.png").read_bytes()


def test_without_known_likelihood_the_optimum_is_left_out_with_a_reason(tmp_path):
    data = write_prepared(tmp_path / "data", (6_000, 500, 2_000))
    (tmp_path / "out").mkdir()
    record = judge(data, blurred, np.full(6, 0.5), JobSpec(), tmp_path / "out", draw=False)
    assert record["fraction_of_optimum"] is None
    assert "simulation" in record["not_available"]["optimum"]
    assert "optimum" not in record["methods"]
    assert all("optimum" not in line for line in summary_lines(record))


def test_reasons_why_the_optimum_is_not_known(data):
    assert exact_posterior(data)[0] is not None
    assert "primaries" in exact_posterior(data, primaries_only=True)[1]
    fewer = PreparedDataset(data.path, data.meta | {"features": ["fTPCSignal", "fP"]})
    assert "momentum" in exact_posterior(fewer)[1]


def without_kaons(path) -> PreparedDataset:
    return write_prepared(path, (6_000, 500, 2_000), keep_pdg=(211, -211, 2212, -2212))


def test_species_absent_from_the_test_sample_is_undefined(tmp_path):
    record = judge(without_kaons(tmp_path / "data"), blurred, np.full(6, 0.5), JobSpec(), tmp_path, draw=False)
    overall = record["species"]["kaon"]["network"]["all"]["overall"]
    assert overall["efficiency"] is None
    assert overall["auc"] is None
    assert overall["signal"] == 0
    assert overall["purity"] == 0.0


@pytest.mark.slow
def test_species_absent_from_the_test_sample_is_drawn_as_such(tmp_path):
    record = judge(without_kaons(tmp_path / "data"), blurred, np.full(6, 0.5), JobSpec(), tmp_path)
    assert len(record["plots"]) == len(list(tmp_path.glob("*.png"))) == 6 * 4 + 4


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A benchmark on so few tracks that nσ can be calibrated for pions alone."""
    folder = tmp_path_factory.mktemp("few")
    data = write_prepared(folder / "data", (1_200, 500, 2_000))
    return folder, judge(data, blurred, np.full(6, 0.5), JobSpec(), folder)


UNCALIBRATED = ("kaon", "proton", "antikaon", "antiproton")


def test_species_that_cannot_be_calibrated_are_undefined_and_named(few):
    folder, record = few
    table = pd.read_csv(folder / "metrics.csv").query("method == 'nsigma'")
    for name in species.TARGET_NAMES:
        own = record["species"][name]["nsigma"]["all"]["overall"]
        undefined = [own[key] is None for key in ("f1", "f1_low", "f1_high", "purity", "efficiency", "auc")]
        assert all(undefined) if name in UNCALIBRATED else not any(undefined), name
        assert own["signal"] > 0
        in_csv = table[table["species"] == name][["f1", "efficiency_low", "auc"]].isna().all(axis=None)
        assert in_csv == (name in UNCALIBRATED)
    assert set(record["methods"]["nsigma"]["undefined"]) == set(UNCALIBRATED)
    pdg = np.abs(PreparedDataset.open(folder / "data").split("train").pdg)
    (line,) = (line for line in record["notices"] if "nσ" in line)
    for names, count in (("kaon, antikaon", (pdg == 321).sum()), ("proton, antiproton", (pdg == 2212).sum())):
        assert 0 < count < 120
        assert f"{names}: {count} training tracks" in line
    assert "at least 120" in line
    assert record["not_available"]["bayes"] == line
    assert "nsigma f1    –  " in summary_lines(record)[1]


def test_the_verdict_counts_no_species_without_a_figure(few):
    folder, record = few
    (folder / "metrics.json").write_text(json.dumps(record))
    text = summary(folder)["verdict"]
    assert "than the nσ selection for" in text
    assert "of 2 species" in text


def test_curves_of_undefined_methods_are_not_drawn(few, monkeypatch):
    folder, record = few
    shown = []
    monkeypatch.setattr(performance.style, "save", lambda figure, _: shown.extend(
        line.get_label() for axes in figure.axes for line in axes.containers))  # fmt: skip
    performance.against_pt(record, species.by_name("kaon"), folder / "kaon.png")
    assert not [label for label in shown if "sigma" in label]
    performance.against_pt(record, species.by_name("pion"), folder / "pion.png")
    assert [label for label in shown if "sigma" in label]


def test_data_without_labels_and_empty_samples_are_refused(tmp_path):
    unlabelled = write_prepared(tmp_path / "data", (100, 10, 10), simulation=False)
    with pytest.raises(NoLabels, match="fPdgCode"):
        judge(unlabelled, blurred, np.full(6, 0.5), JobSpec(), tmp_path)
    empty = write_prepared(tmp_path / "empty", (100, 10, 10))
    for name, dtype, shape in (("pdg", np.int32, (0,)), ("features", np.float32, (0, 16)), ("aux", np.float32, (0, 9))):
        np.save(empty.path / "test" / f"{name}.npy", np.empty(shape, dtype))
    with pytest.raises(NoTracks, match="test sample"):
        judge(empty, blurred, np.full(6, 0.5), JobSpec(), tmp_path)


def test_thresholds_come_from_one_or_many_training_outputs(tmp_path):
    values = {name: 0.1 * (index + 1) for index, name in enumerate(species.TARGET_NAMES)}
    for index, (name, value) in enumerate(values.items()):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "thresholds.json").write_text(json.dumps({name: value}))
    folders = [tmp_path / str(index) for index in (3, 1, 0, 2, 5, 4)]
    np.testing.assert_allclose(read_thresholds(folders), list(values.values()))
    with pytest.raises(CorruptFile, match="kaon"):
        read_thresholds([tmp_path / "0"])
    (tmp_path / "0" / "thresholds.json").write_text('{"pion": ')
    with pytest.raises(CorruptFile, match=r"thresholds\.json"):
        read_thresholds(folders)


def test_an_undefined_threshold_accepts_nothing(data, tmp_path):
    record = judge(data, blurred, np.full(6, math.nan), JobSpec(), tmp_path, draw=False)
    overall = record["species"]["pion"]["network"]["all"]["overall"]
    assert (overall["selected"], overall["purity"], overall["efficiency"]) == (0, None, 0.0)
