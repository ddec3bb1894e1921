"""Which tracks are used, and inputs that cannot be."""

import itertools

import numpy as np
import pytest
from prepared_input import numbered, numbered_frames, numbers, settings_with
from track_files import make_columns, write_tables

from pidml.data.prepare import prepare
from pidml.data.prepared import SPLITS
from pidml.errors import BadValues, MissingColumn, NoTables, NoTracks
from pidml.spec.data_sections import Preparation


@pytest.fixture
def input_file(tmp_path):
    frames = numbered_frames()
    return write_tables(tmp_path / "in.root", frames, baskets=2), frames


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
    dataset = prepare([path], tmp_path / "out", settings_with(useless_features="allow"), simulation=True, seed=1)
    scaled = dataset.scaling.apply(np.asarray(dataset.split("train").features))
    assert np.all(np.abs(scaled[:, dataset.features.index("fDcaZ")]) < 1e-6)
    assert np.isnan(scaled[:, dataset.features.index("fBeta")]).all()
    assert len(dataset.meta["warnings"]) == 2


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
