"""Tracks unlike those that networks were trained on: the bundle knows them, and applying it says so."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.prepared_data import write_prepared
from support.scores import CERTAINTIES, read_root, stacked
from support.small_job import python
from support.small_training import small_job
from track_files import make_columns, write_tables

from pidml import tracks
from pidml.apply import apply_bundle, read_provenance
from pidml.export import Bundle, export_bundle
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train

NAMES = list(tracks.FEATURES)


def bundle_of(folder: Path, change, architecture="ensemble") -> Path:
    prepared = write_prepared(folder / "data", (8000, 2000, 10))
    for name in ("train", "validation"):
        features, pdg = (np.load(prepared.path / name / f"{array}.npy") for array in ("features", "pdg"))
        rows = change(features)
        np.save(prepared.path / name / "features.npy", features[rows])
        np.save(prepared.path / name / "pdg.npy", pdg[rows])
    (folder / "trained").mkdir()
    job = small_job(architecture, max_epochs=1)
    train(prepared, job, TARGET_NAMES, folder / "work", folder / "trained")
    export_bundle([folder / "trained"], prepared, job, folder / "bundle")
    return folder / "bundle"


def no_trd(features):
    features[:, NAMES.index("fTRDPattern")] = np.nan
    return slice(None)


@pytest.fixture(scope="module")
def without_trd(tmp_path_factory):
    return bundle_of(tmp_path_factory.mktemp("no-trd"), no_trd)


@pytest.fixture(scope="module")
def complete_only(tmp_path_factory):
    return bundle_of(tmp_path_factory.mktemp("complete"), lambda f: tracks.feature_pattern(f, NAMES) == 0)


def counted(columns):
    """Number of tracks per missing pattern as networks see them."""
    own = {name: np.array(columns[name], np.float32) for name in NAMES}
    tracks.normalise_missing(own)
    tracks.apply_momentum_limits(own, own["fP"], tracks.MomentumLimits())
    return np.bincount(tracks.missing_pattern(own), minlength=4)


def test_a_bundle_tells_what_its_networks_were_taught(without_trd):
    found = json.loads((without_trd / "manifest.json").read_text())["training"]
    assert (found["tracks"], found["patterns"]["complete"], found["patterns"]["no-tof"]) == (8000, 0, 0)
    assert found["answered_as"] == {"complete": "no-trd", "no-tof": "no-trd-no-tof"}
    assert found["ignored"] == {"fTRDPattern": None}
    page = (without_trd / "README").read_text()
    assert "none of the 8,000 training tracks has TRD (fTRDPattern missing)" in page
    assert max(map(len, page.splitlines())) <= 120
    assert "answered as no-trd\n" in page
    assert sum(found["patterns"].values()) == 8000


def test_a_bundle_of_all_patterns_notes_nothing(tmp_path):
    folder = bundle_of(tmp_path, lambda features: slice(None))
    found = json.loads((folder / "manifest.json").read_text())["training"]
    assert (found["answered_as"], found["ignored"], found["notices"]) == ({}, {}, [])
    given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(300)})
    assert apply_bundle(Bundle.open(folder, threads=1), [given], tmp_path / "scores.root").warnings == []


def test_tracks_with_a_detector_that_training_lacked_are_answered_without_it(without_trd, tmp_path):
    columns = make_columns(2000)
    given = write_tables(tmp_path / "tracks.root", {"DF_1": columns})
    summary = apply_bundle(Bundle.open(without_trd, threads=1), [given], tmp_path / "scores.root")
    hidden = write_tables(tmp_path / "hidden.root", {"DF_1": columns | {"fTRDPattern": np.zeros(2000, np.uint8)}})
    other = apply_bundle(Bundle.open(without_trd, threads=1), [hidden], tmp_path / "other.root")
    scores = [stacked(read_root(tmp_path / name), CERTAINTIES) for name in ("scores.root", "other.root")]
    np.testing.assert_array_equal(*scores)
    numbers = counted(columns)
    said = "{:,} of 2,000 tracks are {}, of which the training had none: answered as {}"
    assert summary.warnings == [
        said.format(numbers[0], "complete", "no-trd"),
        said.format(numbers[1], "no-tof", "no-trd-no-tof"),
    ]
    assert other.warnings == []
    assert read_provenance(tmp_path / "scores.root")["summary"]["untaught"] == summary.untaught


def test_the_command_warns_of_extrapolations(complete_only, tmp_path):
    columns = make_columns(2000)
    given = write_tables(tmp_path / "tracks.root", {"DF_1": columns})
    done = python("-m", "pidml", "apply", "--bundle", complete_only, given, "--out", tmp_path / "scores.root")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("warning")]
    numbers = counted(columns)
    assert [line.split("warning")[1].split(":")[0].strip() for line in said] == [
        f"{numbers[pattern]:,} of 2,000 tracks are {name}, of which the training had none"
        for pattern, name in tracks.PATTERN_NAMES.items()
        if pattern
    ]
    assert all("extrapolations that mean little" in line for line in said)


def test_a_feature_that_no_training_track_lacked_is_counted_and_switches_nothing_untrained_on(tmp_path):
    folder = bundle_of(tmp_path, lambda features: slice(None), "masked-mlp")
    columns = make_columns(2000)
    columns["fDcaXY"][500:] = np.nan
    given = write_tables(tmp_path / "tracks.root", {"DF_1": columns})
    done = python("-m", "pidml", "apply", "--bundle", folder, given, "--out", tmp_path / "scores.root")
    said = (
        "fDcaXY is missing in 1,500 of 2,000 tracks, and was in none of the training tracks: "
        "their certainties mean little"
    )
    assert [line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith("warning")] == [said]
    summary = read_provenance(tmp_path / "scores.root")["summary"]
    assert (summary["untaught"], summary["lacking"]["fDcaXY"]) == ({"fDcaXY": said}, 1500)
    network = load_classifier(tmp_path / "trained").module.parts[0].network
    bits = network.hidden[0].weight[:, network.columns.size :].abs().sum(dim=0)
    assert {NAMES[index] for index in bits.nonzero()[:, 0]} == {"fTRDPattern", "fTOFSignal", "fBeta"}


@pytest.mark.parametrize("architecture", ["boosted-trees", "random-forest"])
def test_trees_send_what_no_training_track_lacked_where_its_mean_goes(tmp_path, architecture):
    bundle = Bundle.open(bundle_of(tmp_path, lambda features: slice(None), architecture), threads=1)
    features = np.array(np.load(tmp_path / "data" / "test" / "features.npy"))
    train_features = np.load(tmp_path / "data" / "train" / "features.npy")
    for name in ("fTPCSignal", "fSign"):  # standardised, and raw
        column = NAMES.index(name)
        missing, mean = features.copy(), features.copy()
        missing[:, column], mean[:, column] = np.nan, train_features[:, column].mean(dtype=np.float64)
        np.testing.assert_array_equal(bundle.predict(missing), bundle.predict(mean))
