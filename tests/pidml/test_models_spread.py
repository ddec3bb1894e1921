"""Raw features far from order 1 reach a network whole: standardised inside its graph, wherever it goes."""

import json

import numpy as np
import pytest
import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml import tracks
from pidml.data.prepared import PreparedDataset
from pidml.export import Bundle, export_bundle
from pidml.models import Inputs
from pidml.models.columns import Columns
from pidml.models.spread import spread_of
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train

NAMES = (*tracks.FEATURES, "fTRDSignal")
SIGNAL = NAMES.index("fTRDSignal")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data"), (3000, 1000, 500), features=NAMES)


def standardised(prepared, folder):
    """The same samples with the signal standardised before the network."""
    folder.mkdir()
    for path in prepared.path.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "scaling.json").unlink()
    signal = prepared.split("train").features[:, SIGNAL].astype(np.float64)
    rows = [*prepared.scaling.as_o2()["data"], ["fTRDSignal", float(np.nanmean(signal)), float(np.nanstd(signal))]]
    (folder / "scaling.json").write_text(json.dumps({"data": rows}))
    return PreparedDataset.open(folder)


def test_features_of_order_1_and_those_that_momenta_replace_stay_as_they_are(tmp_path):
    assert spread_of(write_prepared(tmp_path, (500, 100, 10))) == {}


def test_a_raw_feature_gives_the_columns_of_a_standardised_one(prepared, tmp_path):
    other = standardised(prepared, tmp_path / "standardised")
    assert list(spread_of(prepared)) == ["fTRDSignal"]
    found = []
    for each in (prepared, other):
        columns = Columns(Inputs.of(each.scaling, (), spread_of(each)))
        found.append(columns(torch.from_numpy(each.scaling.apply(np.array(each.split("test").features)))))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    assert found[0][0][:, : len(columns.kept)].abs().max() <= 8


def test_constants_are_found_for_a_feature_that_none_of_the_first_tracks_has(prepared, tmp_path, monkeypatch):
    features = np.array(prepared.split("train").features)
    features[:20, SIGNAL] = np.nan
    (tmp_path / "data" / "train").mkdir(parents=True)
    for path in prepared.path.iterdir():
        if path.name != "train":
            (tmp_path / "data" / path.name).symlink_to(path)
    for name in ("pdg.npy", "aux.npy"):
        (tmp_path / "data" / "train" / name).symlink_to(prepared.path / "train" / name)
    np.save(tmp_path / "data" / "train" / "features.npy", features)
    monkeypatch.setattr("pidml.models.spread.INPUT_TRACKS", 20)
    mean, std = spread_of(PreparedDataset.open(tmp_path / "data"))["fTRDSignal"]
    reduced = (features[:, SIGNAL] - mean) / std
    assert np.nanmax(np.abs(reduced)) == pytest.approx(1)


@pytest.mark.parametrize("architecture", ["masked-mlp", "attention", "ensemble", "mlp"])
def test_what_lies_beyond_8_counts_in_training_files_and_bundle(prepared, tmp_path, architecture):
    (tmp_path / "trained").mkdir()
    job = small_job(architecture, max_epochs=1)
    train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path / "trained")
    classifier = load_classifier(tmp_path / "trained")
    features = np.array(prepared.split("test").features)
    there = ~np.isnan(features[:, SIGNAL])
    assert (features[there, SIGNAL] > 8).all()
    moved = features.copy()
    moved[there, SIGNAL] += 15
    before, after = classifier.predict(features), classifier.predict(moved)
    assert (np.abs(before - after)[there].max(axis=1) > 0).all()
    np.testing.assert_array_equal(before[~there], after[~there])
    export_bundle([tmp_path / "trained"], prepared, job, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle", threads=1)
    np.testing.assert_allclose(bundle.predict(moved), after, atol=1e-5)


def test_a_later_training_starts_from_such_weights(prepared, tmp_path):
    (tmp_path / "first").mkdir()
    train(prepared, small_job(max_epochs=1), TARGET_NAMES, tmp_path / "work", tmp_path / "first")
    (tmp_path / "second").mkdir()
    job = small_job(max_epochs=1, warm_start=str(tmp_path / "first"), learning_rate=1e-9)
    train(prepared, job, TARGET_NAMES, tmp_path / "again", tmp_path / "second")
    features = np.array(prepared.split("test").features)
    first, second = (load_classifier(tmp_path / name).predict(features) for name in ("first", "second"))
    np.testing.assert_allclose(first, second, atol=0.02)  # calibrated anew
