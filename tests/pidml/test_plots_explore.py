from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.prepared_data import write_prepared

from pidml import species, tracks
from pidml.errors import NoTracks
from pidml.explore import correlation, count_tracks, explore, plotted


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    data = write_prepared(tmp_path_factory.mktemp("explore") / "data", (20_000, 3_000, 4_000))
    out = tmp_path_factory.mktemp("out")
    return data, out, explore(data, out)


def test_counts_are_complete_and_right(made):
    data, out, record = made
    table = pd.read_csv(out / "exploration_counts.csv")
    for name in ("train", "validation", "test"):
        split = data.split(name)
        own = table[table["split"] == name]
        assert own["tracks"].sum() == len(split) == record["tracks"][name]
        pattern = tracks.feature_pattern(np.asarray(split.features), data.features)
        for particle in species.ALL:
            for code, text in tracks.PATTERN_NAMES.items():
                row = own[(own["species"] == particle.name) & (own["pattern"] == text)]
                assert row["tracks"].item() == np.sum((np.asarray(split.pdg) == particle.pdg) & (pattern == code))


def test_features_are_described(made):
    data, _, record = made
    train = np.asarray(data.split("train").features)
    for position, row in enumerate(record["features"]):
        assert row["feature"] == data.features[position]
        assert row["missing"] == pytest.approx(np.isnan(train[:, position]).mean())
        assert row["mean"] == pytest.approx(np.nanmean(train[:, position].astype(float)), abs=1e-6)
        assert row["median"] == pytest.approx(np.nanmedian(train[:, position]), rel=1e-4, abs=1e-5)


def test_plots_are_there_and_unique(made):
    _, out, record = made
    files = [plot["file"] for plot in record["plots"]]
    assert len(set(files)) == len(files)
    subjects = ("tpc-signal", "tof-beta", "pt-spectra", "missing-patterns", "missing-vs-p", "features", "correlations")
    assert {f"explore_{name}.png" for name in subjects} == set(files)
    for file in files:
        with Image.open(out / file) as image:
            image.load()
    assert all("20,000 tracks" in plot["caption"] for plot in record["plots"])
    assert json.loads((out / "exploration.json").read_text()) == json.loads(json.dumps(record))


def test_correlation_agrees_with_pandas_where_values_are_missing():
    rng = np.random.default_rng(0)
    values = rng.normal(1000.0, [1.0, 5.0, 2.0, 1.0], (5_000, 4)).astype(np.float32)
    values[:, 1] += 3 * (values[:, 0] - 1000)
    values[rng.random(5_000) < 0.3, 1] = np.nan
    values[rng.random(5_000) < 0.5, 2] = np.nan
    values[:, 3] = 7.0
    found = correlation(values)
    expected = pd.DataFrame(values[:, :3].astype(float)).corr().to_numpy()
    np.testing.assert_allclose(found[:3, :3], expected, atol=1e-6)
    assert np.isnan(found[3]).all()


def test_large_samples_are_drawn_in_part_and_say_so(made, tmp_path):
    data, _, _ = made
    shown = plotted(data, limit=1_600)
    assert len(shown.kind) == 1_600
    assert shown.total == 20_000
    train = np.asarray(data.split("train").features)
    np.testing.assert_array_equal(shown.features[:100], train[:100])
    np.testing.assert_array_equal(shown.features[-100:], train[-100:])
    assert count_tracks(data)["tracks"].sum() == 27_000


def test_experimental_data_and_a_detector_that_is_missing_throughout(tmp_path):
    data = write_prepared(
        tmp_path / "data", (500, 50, 50), simulation=False, features=("fTPCSignal", "fTRDSignal", "fP")
    )
    for name in ("train", "validation", "test"):
        values = np.load(data.path / name / "features.npy")
        values[:, 1] = np.nan
        np.save(data.path / name / "features.npy", values)
    (tmp_path / "out").mkdir()
    record = explore(data, tmp_path / "out")
    files = {plot["file"] for plot in record["plots"]}
    assert "explore_missing-patterns.png" not in files
    assert "explore_trd-signal.png" not in files
    assert record["features"][1]["mean"] is None
    assert record["features"][1]["missing"] == 1


def test_trd_signal_is_drawn_where_it_is_a_feature(tmp_path):
    data = write_prepared(tmp_path / "data", (3_000, 50, 50), features=(*tracks.FEATURES, "fTRDSignal"))
    (tmp_path / "out").mkdir()
    assert "explore_trd-signal.png" in {plot["file"] for plot in explore(data, tmp_path / "out")["plots"]}


def test_an_empty_sample_is_refused(tmp_path):
    data = write_prepared(tmp_path / "data", (100, 10, 10))
    for name, dtype, shape in (("pdg", np.int32, (0,)), ("features", np.float32, (0, 16)), ("aux", np.float32, (0, 9))):
        np.save(data.path / "train" / f"{name}.npy", np.empty(shape, dtype))
    with pytest.raises(NoTracks, match="training sample"):
        explore(data, tmp_path)
