"""Track tables become samples: every track once, split, shuffled, scaled; the same from the same input."""

import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prepared_input import content, numbered, numbered_frames, numbers, settings_with
from track_files import make_columns, old_encoding, write_tables

from pidml import species, tracks
from pidml.data import prepare as prepare_module
from pidml.data.prepare import prepare
from pidml.data.prepared import SPLITS
from pidml.errors import NoTracks
from pidml.simulation import write_track_table
from pidml.spec.data_sections import Preparation


@pytest.fixture
def input_file(tmp_path):
    frames = numbered_frames()
    return write_tables(tmp_path / "in.root", frames, baskets=2), frames


def test_samples_hold_every_track_once_with_its_own_values(tmp_path, input_file):
    path, frames = input_file
    dataset = prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=1)
    source = {name: np.concatenate([frame[name] for frame in frames.values()]) for name in frames["DF_1"]}
    found = np.concatenate([numbers(dataset, name) for name in SPLITS])
    np.testing.assert_array_equal(np.sort(found), np.arange(6000))
    for name in SPLITS:
        split, rows = dataset.split(name), numbers(dataset, name)
        assert split.features.dtype == np.float32
        assert split.pdg.dtype == np.int32
        np.testing.assert_array_equal(split.pdg, source["fPdgCode"][rows])
        for column in ("fTPCSignal", "fPx", "fSign", "fTPCNClsShared", "fAlpha"):
            np.testing.assert_array_equal(split.features[:, dataset.features.index(column)], source[column][rows])
        np.testing.assert_array_equal(split.column("fPt"), source["fPt"][rows])
        np.testing.assert_array_equal(split.column("fBeta"), source["fBeta"][rows])
        np.testing.assert_array_equal(split.column("fIsPhysicalPrimary"), source["fIsPhysicalPrimary"][rows])
        np.testing.assert_allclose(split.column("fEta"), np.arcsinh(source["fPz"] / source["fPt"])[rows], rtol=1e-5)


def test_momentum_limits_hide_detectors_in_the_features_and_not_in_aux(tmp_path, input_file):
    path, _ = input_file
    limits = {"tof": 1.1, "trd": 1.4}
    dataset = prepare([path], tmp_path / "out", settings_with(momentum_limits=limits), simulation=True, seed=1)
    split = dataset.split("train")
    for name, limit in (("fTOFSignal", 1.1), ("fBeta", 1.1), ("fTRDPattern", 1.4)):
        feature, raw = split.features[:, dataset.features.index(name)], split.column(name)
        below = split.column("fP") < np.float32(limit)
        assert np.isnan(feature[below]).all()
        assert (~np.isnan(raw[below])).any()
        np.testing.assert_array_equal(feature[~below], raw[~below])
    assert dataset.meta["momentum_limits"] == limits


def test_fractions_are_met_and_the_order_is_random(tmp_path):
    path = write_tables(tmp_path / "in.root", {"DF_1": numbered(40_000)})
    wanted = settings_with(validation_fraction=0.1, test_fraction=0.3)
    dataset = prepare([path], tmp_path / "out", wanted, simulation=True, seed=3)
    for name, fraction in (("train", 0.6), ("validation", 0.1), ("test", 0.3)):
        rows = numbers(dataset, name)
        deviation = np.sqrt(40_000 * fraction * (1 - fraction))
        assert abs(len(rows) - 40_000 * fraction) < 5 * deviation
        # Every stretch of a shuffled sample holds tracks from everywhere; neighbours are unrelated.
        assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 5 / np.sqrt(len(rows))
        means = [part.mean() for part in np.array_split(rows, 10)]
        assert np.ptp(means) < 10 * 40_000 / np.sqrt(12 * len(rows) / 10)


def test_scaling_is_that_of_the_training_sample_without_its_missing_values(tmp_path, input_file):
    path, _ = input_file
    dataset = prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=5)
    features = np.asarray(dataset.split("train").features, np.float64)
    scaling = dataset.scaling
    assert set(scaling.standardised) == set(tracks.STANDARDISED)
    for index, name in enumerate(dataset.features):
        if name in tracks.STANDARDISED:
            assert scaling.mean[index] == pytest.approx(np.nanmean(features[:, index]), rel=1e-6)
            assert scaling.std[index] == pytest.approx(np.nanstd(features[:, index]), rel=1e-6)
        else:
            assert (scaling.mean[index], scaling.std[index]) == (0, 1)


def test_counts_per_sample_species_and_missing_pattern(tmp_path, input_file):
    path, _ = input_file
    dataset = prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=5)
    for name in SPLITS:
        split, counts = dataset.split(name), dataset.meta["counts"][name]
        pattern = tracks.feature_pattern(np.asarray(split.features), dataset.features)
        assert sum(sum(row.values()) for row in counts.values()) == len(split) == dataset.meta["tracks"][name]
        for kind in species.ALL:
            for value, label in tracks.PATTERN_NAMES.items():
                assert counts[kind.name][label] == np.sum((split.pdg == kind.pdg) & (pattern == value))
        assert sum(counts["other"].values()) == np.sum(split.pdg == 1000010020) > 0
    json.dumps(dataset.meta, allow_nan=False)


def test_equal_seeds_give_equal_data_and_other_seeds_other_data(tmp_path, input_file):
    path, _ = input_file
    first, again, other = (
        content(prepare([path], tmp_path / str(index), Preparation(), simulation=True, seed=seed))
        for index, seed in enumerate((7, 7, 8))
    )
    assert first == again
    assert first["train", "features"] != other["train", "features"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    chunk=st.integers(1, 200),
    seed=st.integers(0, 2**31 - 1),
    cut=st.floats(0.1, 2),
)
def test_no_track_is_lost_or_doubled_whatever_the_chunks_and_the_input(tmp_path, sizes, chunk, seed, cut):
    sizes = [60, *sizes]
    folder = tmp_path / os.urandom(4).hex()
    folder.mkdir()
    starts = np.concatenate([[0], np.cumsum(sizes)])
    frames = {f"DF_{i + 1}": numbered(size, i, first=int(starts[i])) for i, size in enumerate(sizes)}
    path = write_tables(folder / "in.root", frames)
    wanted = settings_with(cuts={"momentum_min": cut}, validation_fraction=0.3, test_fraction=0.3)
    momenta = np.concatenate([frame["fP"] for frame in frames.values()])
    expected = np.flatnonzero(momenta > cut)
    try:
        whole = prepare([path], folder / "whole", wanted, simulation=True, seed=seed)
    except NoTracks:
        assert len(expected) < 40
        return
    pieces = prepare([path], folder / "pieces", wanted, simulation=True, seed=seed, chunk=chunk)
    np.testing.assert_array_equal(np.sort(np.concatenate([numbers(pieces, name) for name in SPLITS])), expected)
    assert content(whole) == content(pieces)
    assert whole.meta["removed"]["momentum"] == len(momenta) - len(expected)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_both_encodings_of_missing_values_give_the_same_data(tmp_path, seed):
    folder = tmp_path / os.urandom(4).hex()
    folder.mkdir()
    columns = make_columns(300, seed)
    results = []
    for name, encoded in (("new", columns), ("old", old_encoding(columns))):
        path = write_tables(folder / f"{name}.root", {"DF_1": encoded})
        results.append(content(prepare([path], folder / name, Preparation(), simulation=True, seed=seed)))
    assert results[0] == results[1]


@pytest.mark.parametrize("spool_memory", [0, 200_000])
def test_result_does_not_depend_on_buckets_and_where_they_lie(tmp_path, input_file, monkeypatch, spool_memory):
    path, _ = input_file
    one = content(prepare([path], tmp_path / "one", Preparation(), simulation=True, seed=7))
    monkeypatch.setattr(prepare_module, "_BUCKET_BYTES", 10_000)
    monkeypatch.setattr(prepare_module, "_SPOOL_MEMORY", spool_memory)
    many = content(prepare([path], tmp_path / "many", Preparation(), simulation=True, seed=7))
    for key in one:
        if key != "scaling":  # sums are rounded in another order
            assert one[key] == many[key], key


def test_several_files_may_hold_equally_named_directories(tmp_path):
    paths = [write_tables(tmp_path / f"{i}.root", {"DF_1": numbered(500, i, first=500 * i)}) for i in range(3)]
    dataset = prepare(paths, tmp_path / "out", Preparation(), simulation=True, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([numbers(dataset, n) for n in SPLITS])), np.arange(1500))
    assert dataset.meta["input"] == {"files": 3, "tables": 3, "tracks": 1500}


def test_max_tracks_keeps_a_random_part_in_the_same_fractions(tmp_path, input_file):
    path, _ = input_file
    dataset = prepare([path], tmp_path / "out", settings_with(max_tracks=1000), simulation=True, seed=1)
    assert dataset.meta["tracks"] == {"train": 640, "validation": 160, "test": 200}
    assert dataset.meta["removed"]["max_tracks"] == 5000
    everything = prepare([path], tmp_path / "all", Preparation(), simulation=True, seed=1)
    for name in SPLITS:
        assert set(numbers(dataset, name)) < set(numbers(everything, name))
        assert numbers(dataset, name).max() > 5000
    more = prepare([path], tmp_path / "more", settings_with(max_tracks=10_000), simulation=True, seed=1)
    assert more.meta["tracks"] == everything.meta["tracks"]


def test_nsigma_columns_are_kept_where_every_table_has_them(tmp_path):
    full = make_columns(300) | {"fTPCNSigmaPi": np.linspace(-3, 3, 300, dtype=np.float32)}
    full["fTPCNSigmaPi"][7] = np.inf  # may be, where no width is expected
    one = write_tables(tmp_path / "one.root", {"DF_1": full}, tree="O2pidtracksmc")
    two = write_tables(tmp_path / "two.root", {"DF_1": make_columns(300)})
    alone = prepare([one], tmp_path / "a", Preparation(), simulation=True, seed=1)
    found = np.concatenate([alone.split(name).column("fTPCNSigmaPi") for name in SPLITS])
    np.testing.assert_array_equal(np.sort(found), np.sort(full["fTPCNSigmaPi"]))
    assert alone.meta["removed"]["bad_values"] == 0
    both = prepare([one, two], tmp_path / "b", Preparation(), simulation=True, seed=1)
    assert "fTPCNSigmaPi" not in both.meta["aux"]


def test_known_likelihood_is_passed_on_if_every_file_has_it(tmp_path, input_file):
    write_track_table(tmp_path / "simulated.root", 600, seed=1)
    alone = prepare([tmp_path / "simulated.root"], tmp_path / "a", Preparation(), simulation=True, seed=1)
    both = prepare([tmp_path / "simulated.root", input_file[0]], tmp_path / "b", Preparation(), simulation=True, seed=1)
    assert (alone.meta["likelihood_known"], both.meta["likelihood_known"]) == (True, False)
