import errno
import itertools
import json
import os
import subprocess
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from track_files import make_columns, old_encoding, write_tables

from pidml import atomic, species, tracks
from pidml.data import prepare as prepare_module
from pidml.data.prepare import prepare
from pidml.data.prepared import SPLITS, PreparedDataset
from pidml.errors import BadValues, DiskFull, MissingColumn, NoTables, NoTracks, StoreError
from pidml.simulation import write_track_table
from pidml.spec.data_sections import Preparation

ARRAYS = ("features", "pdg", "aux")


def numbered(n, seed=0, first=0, **changes):
    """Tracks whose fDcaZ is their number in the input, so that they can be told apart afterwards."""
    return make_columns(n, seed) | {"fDcaZ": np.arange(first, first + n, dtype=np.float32)} | changes


def settings_with(**sections):
    return Preparation.model_validate(sections)


def numbers(dataset, split):
    return np.asarray(dataset.split(split).features[:, dataset.features.index("fDcaZ")]).astype(int)


def content(dataset):
    return {
        (name, array): np.load(dataset.path / name / f"{array}.npy").tobytes() for name in SPLITS for array in ARRAYS
    } | {"scaling": (dataset.path / "scaling.json").read_text(), "meta": dataset.meta}


@pytest.fixture
def input_file(tmp_path):
    frames = {f"DF_{i + 1}": numbered(2000, i, first=2000 * i) for i in range(3)}
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


def test_a_track_on_the_edge_of_a_cut_is_dropped_and_each_cut_is_counted(tmp_path):
    columns = numbered(1000)
    columns["fTPCSignal"][:6] = [0, -1, 10_000, 20_000, np.nan, 50]
    scale = np.ones(1000, np.float32)
    scale[6:8] = [4 / columns["fP"][6], 5 / columns["fP"][7]]
    for name in ("fP", "fPt", "fPx", "fPy", "fPz"):
        columns[name] *= scale
    columns["fP"][6] = 4.0
    path = write_tables(tmp_path / "in.root", {"DF_1": columns})
    wanted = settings_with(cuts={"momentum_max": 4.0, "abs_eta_max": 0.5, "primaries_only": True})
    dataset = prepare([path], tmp_path / "out", wanted, simulation=True, seed=1)
    with np.errstate(invalid="ignore"):
        signal = (columns["fTPCSignal"] > 0) & (columns["fTPCSignal"] < 10_000)
    momentum = columns["fP"] < 4.0
    eta = np.abs(np.arcsinh(columns["fPz"] / columns["fPt"])) < 0.5
    primary = columns["fIsPhysicalPrimary"] == 1
    assert dataset.meta["removed"] == {
        "bad_values": 0,
        "tpc_signal": 5,
        "momentum": np.sum(signal & ~momentum),
        "eta": np.sum(signal & momentum & ~eta),
        "secondary": np.sum(signal & momentum & eta & ~primary),
        "max_tracks": 0,
    }
    assert not momentum[6]
    kept = np.sort(np.concatenate([numbers(dataset, name) for name in SPLITS]))
    np.testing.assert_array_equal(kept, np.flatnonzero(signal & momentum & eta & primary))


def test_experimental_data_has_no_labels(tmp_path):
    path = write_tables(tmp_path / "in.root", {"DF_1": make_columns(500, simulation=False)}, tree="O2pidtracksdataml")
    dataset = prepare([path], tmp_path / "out", Preparation(), simulation=False, seed=1)
    assert not dataset.simulation
    assert not dataset.split("train").pdg.any()
    assert "fIsPhysicalPrimary" not in dataset.meta["aux"]
    assert sum(dataset.meta["counts"]["train"]["unlabelled"].values()) == len(dataset.split("train"))


def test_simulation_and_data_are_not_mistaken_for_each_other(tmp_path):
    path = write_tables(tmp_path / "in.root", {"DF_1": make_columns(50, simulation=False)}, tree="O2pidtracksdataml")
    with pytest.raises(NoTables, match=r"in\.root: DF_1/O2pidtracksdataml is a table of experimental data"):
        prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=1)
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *itertools.product(["fP", "fPt", "fPx", "fPz"], [np.nan, np.inf, -np.inf]),
        ("fDcaXY", np.inf),
        ("fBeta", -np.inf),
    ],
)
def test_many_impossible_values_refuse_the_file_few_are_dropped(tmp_path, column, value):
    columns = numbered(20_000)
    columns[column][[5, 17_000]] = value
    path = write_tables(tmp_path / "in.root", {"DF_1": columns})
    dataset = prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=1)
    assert dataset.meta["removed"]["bad_values"] == 2
    kept = np.concatenate([numbers(dataset, name) for name in SPLITS])
    assert not {5, 17_000} & set(kept)
    assert len(kept) == 19_998
    columns[column][100:110] = value
    bad = write_tables(tmp_path / "bad.root", {"DF_7": columns})
    with pytest.raises(BadValues, match=rf"bad\.root: 12 of 20000 tracks .*DF_7/O2pidtracksmcml (fP|{column})\b"):
        prepare([path, bad], tmp_path / "out2", Preparation(), simulation=True, seed=1)


def test_momenta_that_contradict_each_other_are_impossible(tmp_path):
    columns = make_columns(5000)
    columns["fP"][:100] *= 1.1
    path = write_tables(tmp_path / "in.root", {"DF_1": columns})
    with pytest.raises(BadValues, match="100 of 5000 tracks"):
        prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=1)


def test_features_that_tell_nothing_are_reported_and_harmless(tmp_path):
    columns = make_columns(1000)
    columns["fDcaZ"][:] = 0.3
    columns["fTOFSignal"][:] = np.nan
    columns["fBeta"][:] = np.nan
    path = write_tables(tmp_path / "in.root", {"DF_1": columns})
    dataset = prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=1)
    scaled = dataset.scaling.apply(np.asarray(dataset.split("train").features))
    assert np.all(np.abs(scaled[:, dataset.features.index("fDcaZ")]) < 1e-6)
    assert np.isnan(scaled[:, dataset.features.index("fBeta")]).all()
    said = "\n".join(dataset.meta["warnings"])
    assert "fDcaZ has the same value 0.3" in said
    assert "fTOFSignal is missing for every track" in said
    assert len(dataset.meta["warnings"]) == 3


def test_nothing_left_after_the_cuts_names_what_removed_it(tmp_path, input_file):
    path, _ = input_file
    wanted = settings_with(cuts={"tpc_signal_min": 5000.0})
    with pytest.raises(NoTracks, match=r"6000 tracks in 3 tables of .*in\.root .*tpc_signal removed 6000"):
        prepare([path], tmp_path / "out", wanted, simulation=True, seed=1)
    with pytest.raises(NoTracks, match="no track is left for validation"):
        prepare([path], tmp_path / "out2", settings_with(max_tracks=2), simulation=True, seed=1)
    empty = write_tables(tmp_path / "empty.root", {"DF_1": make_columns(0)})
    with pytest.raises(NoTracks, match=r"empty\.root"):
        prepare([empty], tmp_path / "out3", Preparation(), simulation=True, seed=1)


def test_empty_tables_among_others_are_fine(tmp_path):
    path = write_tables(tmp_path / "in.root", {"DF_1": make_columns(0), "DF_2": numbered(200)})
    dataset = prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=1)
    assert sum(dataset.meta["tracks"].values()) == 200


def test_column_missing_from_any_file_is_found_before_anything_is_written(tmp_path):
    columns = make_columns(100)
    del columns["fBeta"]
    good = write_tables(tmp_path / "good.root", {"DF_1": make_columns(100)})
    bad = write_tables(tmp_path / "bad.root", {"DF_9": columns})
    with pytest.raises(MissingColumn, match=r"bad\.root: DF_9/O2pidtracksmcml has no column fBeta"):
        prepare([good, bad], tmp_path / "out", Preparation(), simulation=True, seed=1)
    assert not (tmp_path / "out").exists()


def test_prepared_data_is_not_overwritten(tmp_path, input_file):
    prepare([input_file[0]], tmp_path / "out", Preparation(), simulation=True, seed=1)
    before = content(PreparedDataset.open(tmp_path / "out"))
    with pytest.raises(StoreError, match="not empty"):
        prepare([input_file[0]], tmp_path / "out", Preparation(), simulation=True, seed=2)
    assert content(PreparedDataset.open(tmp_path / "out")) == before


def test_failed_write_leaves_nothing(tmp_path, input_file, monkeypatch):
    path, _ = input_file
    written, real = [], os.pwrite

    def full(descriptor, data, offset):
        written.append(len(data))
        if len(written) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    store = tmp_path / "store"
    with pytest.raises(DiskFull, match="no space left"), atomic.atomic_directory(store / "data") as folder:
        prepare([path], folder, Preparation(), simulation=True, seed=1)
    assert list(store.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk_is_named_and_leaves_nothing(tiny_disk, input_file):
    path, _ = input_file
    with pytest.raises(DiskFull, match=str(tiny_disk)), atomic.atomic_directory(tiny_disk / "data") as folder:
        prepare([path], folder, Preparation(), simulation=True, seed=1)
    assert list(tiny_disk.iterdir()) == []


def test_nothing_but_the_dataset_stays_in_the_directory(tmp_path, input_file):
    path, _ = input_file
    done = []
    prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=1, progress=lambda *n: done.append(n))
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == sorted([*SPLITS, "meta.json", "scaling.json"])
    assert done[-1] == (6000, 6000)
    assert PreparedDataset.open(tmp_path / "out").meta["seed"] == 1


def test_known_likelihood_is_passed_on_if_every_file_has_it(tmp_path, input_file):
    write_track_table(tmp_path / "simulated.root", 600, seed=1)
    alone = prepare([tmp_path / "simulated.root"], tmp_path / "a", Preparation(), simulation=True, seed=1)
    both = prepare([tmp_path / "simulated.root", input_file[0]], tmp_path / "b", Preparation(), simulation=True, seed=1)
    assert (alone.meta["likelihood_known"], both.meta["likelihood_known"]) == (True, False)


def test_memory_is_bounded_by_chunk_and_bucket_not_by_the_input(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "_BUCKET_BYTES", 4_000_000)
    monkeypatch.setattr(prepare_module, "_SPOOL_MEMORY", 2_000_000)
    path = write_tables(tmp_path / "in.root", {f"DF_{i}": make_columns(10_000, i) for i in range(8)})
    peaks, sizes = [], []
    for name, paths in (("small", [path]), ("large", [path] * 12)):
        tracemalloc.start()
        prepare(paths, tmp_path / name, Preparation(), simulation=True, seed=1, chunk=10_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(sum(item.stat().st_size for item in (tmp_path / name).rglob("*.npy")))
    assert sizes[1] > 11 * sizes[0]
    assert peaks[1] - peaks[0] < 0.15 * (sizes[1] - sizes[0])
