import json
import os
import subprocess

import numpy as np
import pytest
import uproot
from track_files import flip_bytes, write_raw

from pidml import tracks
from pidml.data import track_tables
from pidml.data.prepare import prepare
from pidml.errors import BadValues, CorruptFile, DiskFull, InputMissing, MissingColumn, NoTables
from pidml.producer import ao2d, signals
from pidml.producer.native import produce_native
from pidml.simulation import RawFormat, made_by_simulation, write_ao2d, write_track_table
from pidml.simulation.ao2d import simulate_frame
from pidml.simulation.rejected import summary as reasons_summary
from pidml.spec.data_sections import Preparation

FIELD = 0.5
TREE = "O2pidtracksmcml"


def raw_tables(n=200, seed=1, **form):
    """The tables of one directory as plain arrays that a test may change."""
    tables = simulate_frame(n, np.random.default_rng(seed), RawFormat(**form)).tables
    return {
        name: {key: values.copy() for key, values in columns.items() if isinstance(values, np.ndarray)}
        for name, columns in tables.items()
    }


def produce(inputs, output, simulation=True, field=FIELD, **options):
    return produce_native(inputs if isinstance(inputs, list) else [inputs], output, simulation, field, **options)


def read(path, frame, tree=TREE):
    with uproot.open(path) as file:
        return file[f"{frame}/{tree}"].arrays(library="np")


@pytest.mark.parametrize(
    "form",
    [
        RawFormat(),
        RawFormat(extra="O2trackextra_001", mc_collision="O2mccollision"),
        RawFormat(tracks="O2track", extra="O2trackextra"),
    ],
    ids=["latest", "older", "oldest"],
)
def test_closed_loop_reproduces_the_simulated_truth(tmp_path, form):
    frames = write_ao2d(tmp_path / "AO2D.root", 6000, seed=4, frames=3, form=form, keep_frames=True)
    summary = produce(tmp_path / "AO2D.root", tmp_path / "tracks.root")
    assert summary.frames == {"DF_1": 2000, "DF_2": 2000, "DF_3": 2000}
    for number, frame in enumerate(frames, start=1):
        found, expected = read(tmp_path / "tracks.root", f"DF_{number}"), frame.expected
        # float32 in the raw tables: relative 6e-8 of momenta; of coordinates (tens of cm at most) a few 1e-6 cm.
        for name in ("fPx", "fPy", "fPz"):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=3e-7 * np.max(found["fP"]))
        for name in ("fDcaXY", "fDcaZ", "fX", "fY", "fZ"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=5e-6)
        turn = np.angle(np.exp(1j * (found["fAlpha"].astype(np.float64) - expected["fAlpha"])))
        assert np.max(np.abs(turn)) < 2e-6
        np.testing.assert_allclose(found["fBeta"], expected["fBeta"], rtol=2e-6)
        np.testing.assert_allclose(found["fTOFSignal"], expected["fTOFSignal"], rtol=2e-7, atol=5e-3)
        for name in ("fTPCSignal", "fSign", "fTPCNClsShared", "fPdgCode", "fIsPhysicalPrimary"):
            np.testing.assert_array_equal(found[name], expected[name])
        np.testing.assert_array_equal(found["fTRDPattern"], np.nan_to_num(expected["fTRDPattern"]))
        np.testing.assert_array_equal(found["fTRDSignal"], expected["fTRDSignal"])
        p = np.sqrt(expected["fPx"] ** 2 + expected["fPy"] ** 2 + expected["fPz"] ** 2)
        np.testing.assert_allclose(found["fP"], p, rtol=1e-6)
        np.testing.assert_allclose(found["fPt"], np.hypot(expected["fPx"], expected["fPy"]), rtol=1e-6)
        assert np.isnan(expected["fBeta"]).any()
        assert set(found["fTrackType"]) == {0}


def test_each_cut_removes_what_the_simulation_made_for_it(tmp_path):
    frames = write_ao2d(tmp_path / "AO2D.root", 5000, seed=9, frames=2, keep_frames=True)
    summary = produce(tmp_path / "AO2D.root", tmp_path / "tracks.root")
    made = reasons_summary(np.concatenate([frame.reasons for frame in frames]))
    assert summary.written == made["none"] == 5000
    assert summary.read == sum(made.values())
    assert sum(summary.removed.values()) == summary.read - summary.written
    same = {"no_collision", "no_particle", "pt", "eta", "tpc_chi2", "its_chi2", "dca_z", "dca_xy"}
    assert {name: summary.removed[name] for name in same} == {name: made[name] for name in same}
    assert summary.removed["tpc_crossed_rows"] == made["crossed_rows"] + made["no_tpc"]
    assert summary.removed["tpc_crossed_over_findable"] == made["crossed_over_findable"]
    assert summary.removed["its_inner_barrel"] == made["inner_barrel"] + made["no_its"]
    assert all(made[name] for name in made)
    json.dumps(summary.as_dict(), allow_nan=False)


def test_the_wrong_sign_of_the_field_shows_in_the_distances(tmp_path):
    write_ao2d(tmp_path / "AO2D.root", 500, seed=4, frames=1)
    right = produce(tmp_path / "AO2D.root", tmp_path / "right.root")
    wrong = produce(tmp_path / "AO2D.root", tmp_path / "wrong.root", field=-FIELD)
    assert wrong.removed["dca_xy"] > right.removed["dca_xy"]


@pytest.mark.parametrize("simulation", [True, False])
def test_table_has_the_columns_of_o2physics_in_its_order_and_types(tmp_path, simulation):
    write_ao2d(tmp_path / "AO2D.root", 300, seed=4, frames=2, form=RawFormat(simulation=simulation))
    summary = produce(tmp_path / "AO2D.root", tmp_path / "tracks.root", simulation)
    tree = TREE if simulation else "O2pidtracksdataml"
    wanted = tracks.TRAINING_COLUMNS if simulation else tracks.TRAINING_COLUMNS[:-2]
    with uproot.open(tmp_path / "tracks.root") as file:
        written = file[f"DF_1/{tree}"]
        assert written.keys() == [column.name for column in wanted]
        assert [branch.interpretation.to_dtype.str[1:] for branch in written.branches] == [c.dtype for c in wanted]
        assert file.keys(recursive=False, cycle=False) == ["metaData", "DF_1", "DF_2"]
        assert made_by_simulation(file)
    assert track_tables.kind_of_file(tmp_path / "tracks.root") == "tracks"
    assert summary.tree == tree
    # Tracks without a particle cannot be told in data: they are kept.
    assert (summary.written > 300) == (not simulation)


def test_files_that_the_package_did_not_simulate_are_not_marked(tmp_path):
    write_raw(tmp_path / "AO2D.root", {"DF_1": raw_tables()})
    produce(tmp_path / "AO2D.root", tmp_path / "tracks.root")
    with uproot.open(tmp_path / "tracks.root") as file:
        assert not made_by_simulation(file)
        assert "metaData" not in file


def test_equal_directory_names_in_several_files_do_not_collide(tmp_path):
    inputs = []
    for number in (1, 2):
        inputs.append(tmp_path / f"{number}.root")
        write_ao2d(inputs[-1], 200, seed=number, frames=2, first_frame=5)
    summary = produce(inputs, tmp_path / "tracks.root")
    assert list(summary.frames) == ["DF_5", "DF_6", "DF_7", "DF_8"]
    assert summary.renamed == {f"{inputs[1]}: DF_5": "DF_7", f"{inputs[1]}: DF_6": "DF_8"}
    produce([inputs[1]], tmp_path / "second.root")
    for copy, original in (("DF_7", "DF_5"), ("DF_8", "DF_6")):
        one, other = read(tmp_path / "tracks.root", copy), read(tmp_path / "second.root", original)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_directory_without_selected_tracks_gets_an_empty_table(tmp_path):
    tables = raw_tables()
    tables["O2trackextra_002"]["fTPCChi2NCl"][:] = 9
    write_raw(tmp_path / "AO2D.root", {"DF_1": tables, "DF_2": raw_tables(50)})
    summary = produce(tmp_path / "AO2D.root", tmp_path / "tracks.root")
    assert summary.frames == {"DF_1": 0, "DF_2": 50}
    assert [table.tracks for table in track_tables.list_tables(tmp_path / "tracks.root")] == [0, 50]
    dataset = prepare([tmp_path / "tracks.root"], tmp_path / "out", Preparation(), simulation=True, seed=1)
    assert dataset.meta["input"]["tracks"] == 50


def test_a_directory_without_tracks_at_all_gets_an_empty_table(tmp_path):
    tables = {name: {key: values[:0] for key, values in columns.items()} for name, columns in raw_tables().items()}
    write_raw(tmp_path / "AO2D.root", {"DF_1": tables})
    assert produce(tmp_path / "AO2D.root", tmp_path / "tracks.root").frames == {"DF_1": 0}


def test_drawn_tracks_are_a_reproducible_part_of_all_inputs(tmp_path):
    inputs = []
    for number in (1, 2):
        inputs.append(tmp_path / f"{number}.root")
        write_ao2d(inputs[-1], 2000 * number, seed=number, frames=2)
    results = {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        summary = produce(inputs, tmp_path / f"{name}.root", subsample_tracks=900, seed=seed)
        assert summary.written == 900
        assert summary.removed["track_not_drawn"] == 5100
        results[name] = {frame: read(tmp_path / f"{name}.root", frame)["fPx"] for frame in summary.frames}
    assert all(np.array_equal(values, results["again"][frame]) for frame, values in results["one"].items())
    assert not all(np.array_equal(values, results["other"][frame]) for frame, values in results["one"].items())
    # The second file has twice the tracks of the first: 600 ± 14.
    assert abs(sum(len(values) for values in list(results["one"].values())[2:]) - 600) < 70
    everything = np.concatenate(
        [read(path, f"DF_{i}")["fX"] for path in [_all(inputs, tmp_path)] for i in (1, 2, 3, 4)]
    )
    assert np.isin(
        np.concatenate([read(tmp_path / "one.root", f"DF_{i}")["fX"] for i in (1, 2, 3, 4)]), everything
    ).all()


def _all(inputs, folder):
    produce(inputs, folder / "all.root")
    return folder / "all.root"


def test_drawn_events_keep_or_drop_their_tracks_together(tmp_path):
    write_ao2d(tmp_path / "AO2D.root", 3000, seed=3, frames=3)
    with uproot.open(tmp_path / "AO2D.root") as file:
        collisions = [file[f"DF_{i}/O2collision_001"].num_entries for i in (1, 2, 3)]
    wanted = sum(collisions) // 3
    summary = produce(tmp_path / "AO2D.root", tmp_path / "some.root", subsample_events=wanted, seed=1)
    produce(tmp_path / "AO2D.root", tmp_path / "all.root")
    seen = 0
    for frame in ("DF_1", "DF_2", "DF_3"):
        some, everything = read(tmp_path / "some.root", frame), read(tmp_path / "all.root", frame)
        # The tracks of a collision share its vertex: distance along z and point determine it.
        vertex = np.round(everything["fZ"].astype(np.float64) - everything["fDcaZ"], 4)
        kept = np.isin(everything["fTPCSignal"], some["fTPCSignal"])
        for value in np.unique(vertex):
            assert len(set(kept[vertex == value])) == 1
        seen += len(np.unique(vertex[kept]))
    assert 0 < seen <= wanted
    assert abs(summary.written - 1000) < 200
    assert produce(tmp_path / "AO2D.root", tmp_path / "a.root", subsample_events=10**9).written == 3000


def test_tof_time_uses_the_hypothesis_of_the_tracking():
    length, momentum, codes = np.array([400.0] * 5), np.array([1.0] * 5), np.arange(5, dtype=np.uint32)
    signal = signals.tof_signal(np.full(5, 2.0), codes << np.uint32(28), length, momentum)
    energy = np.sqrt(1 + np.array([0.00051099895, 0.1056583755, 0.13957039, 0.493677, 0.93827208943]) ** 2)
    np.testing.assert_allclose(signal, 2000 + 400 / 0.0299792458 * energy, rtol=1e-12)
    np.testing.assert_allclose(signals.beta(signal - 2000, np.zeros(5), length), 1 / energy, rtol=1e-12)
    assert np.isnan(signals.beta(np.array([5.0]), np.array([5.0]), np.array([400.0])))[0]


def test_latest_version_of_a_table_is_taken():
    trees = [
        "O2track",
        "O2trackextra_001",
        "O2trackextra",
        "O2trackextra_002",
        "O2trackextraold_009",
        "O2mcparticle_001",
    ]
    assert ao2d.latest_version(trees, "O2trackextra") == "O2trackextra_002"
    assert ao2d.latest_version(trees, "O2track") == "O2track"
    assert ao2d.latest_version(trees, "O2mcparticle") == "O2mcparticle_001"
    assert ao2d.latest_version(trees, "O2collision") is None


@pytest.mark.parametrize(
    ("table", "simulation"),
    [("O2track_iu", True), ("O2trackextra_002", True), ("O2collision_001", False), ("O2mctracklabel", True)],
)
def test_missing_table_is_named(tmp_path, table, simulation):
    tables = raw_tables()
    del tables[table]
    write_raw(tmp_path / "AO2D.root", {"DF_3": tables})
    with pytest.raises(NoTables, match=rf"AO2D\.root: DF_3 has no table {table.removesuffix('_001')[:9]}"):
        produce(tmp_path / "AO2D.root", tmp_path / "tracks.root", simulation)
    assert not (tmp_path / "tracks.root").exists()


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("O2track_iu", "fSnp"),
        ("O2trackextra_002", "fTOFExpMom"),
        ("O2trackextra_002", "fITSClusterSizes"),
        ("O2collision_001", "fCollisionTime"),
        ("O2mcparticle_001", "fPdgCode"),
    ],
)
def test_missing_column_is_named(tmp_path, table, column):
    tables = raw_tables()
    del tables[table][column]
    write_raw(tmp_path / "AO2D.root", {"DF_3": tables})
    shown = "fITSClusterMap" if column == "fITSClusterSizes" else column
    with pytest.raises(MissingColumn, match=rf"AO2D\.root: DF_3/{table} has no column {shown}"):
        produce(tmp_path / "AO2D.root", tmp_path / "tracks.root")


@pytest.mark.parametrize(
    ("table", "column", "target"),
    [
        ("O2track_iu", "fIndexCollisions", "O2collision_001"),
        ("O2mctracklabel", "fIndexMcParticles", "O2mcparticle_001"),
    ],
)
@pytest.mark.parametrize("value", [-2, 10**6])
def test_index_that_points_nowhere_is_named(tmp_path, table, column, target, value):
    tables = raw_tables()
    tables[table][column][7] = value
    write_raw(tmp_path / "AO2D.root", {"DF_1": tables})
    with pytest.raises(BadValues, match=rf"DF_1/{table}: {column} points at rows .*{value}.* of {target}"):
        produce(tmp_path / "AO2D.root", tmp_path / "tracks.root")


def test_tables_of_different_length_are_not_joined(tmp_path):
    tables = raw_tables()
    tables["O2trackextra_002"] = {key: values[:-1] for key, values in tables["O2trackextra_002"].items()}
    write_raw(tmp_path / "AO2D.root", {"DF_1": tables})
    with pytest.raises(BadValues, match=r"DF_1/O2trackextra_002 has \d+ rows, DF_1/O2track_iu has \d+"):
        produce(tmp_path / "AO2D.root", tmp_path / "tracks.root")


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("O2track_iu", "fSigned1Pt", np.nan),
        ("O2track_iu", "fSigned1Pt", 0),
        ("O2track_iu", "fSnp", 1.5),
        ("O2track_iu", "fZ", np.inf),
        ("O2trackextra_002", "fTrackTime", np.nan),
        ("O2trackextra_002", "fFlags", 0xF0000001),
    ],
)
def test_impossible_values_are_dropped_while_they_are_few(tmp_path, table, column, value):
    tables = raw_tables(20_000)
    with_tof = np.flatnonzero(
        (tables["O2trackextra_002"]["fTOFChi2"] >= 0) & (tables["O2track_iu"]["fIndexCollisions"] >= 0)
    )
    with_tof = with_tof[tables["O2mctracklabel"]["fIndexMcParticles"][with_tof] >= 0]
    tables[table][column][with_tof[:2]] = value
    write_raw(tmp_path / "few.root", {"DF_1": tables})
    assert produce(tmp_path / "few.root", tmp_path / "tracks.root").removed["bad_values"] == 2
    tables[table][column][with_tof[:20]] = value
    write_raw(tmp_path / "many.root", {"DF_1": tables})
    with pytest.raises(BadValues, match=r"many\.root: 20 of \d+ tracks"):
        produce(tmp_path / "many.root", tmp_path / "many-tracks.root")
    assert not (tmp_path / "many-tracks.root").exists()


def test_unusable_files_are_named_and_leave_nothing(tmp_path):
    good = tmp_path / "good.root"
    write_ao2d(good, 400, seed=1, frames=2)
    data = good.read_bytes()
    (tmp_path / "cut.root").write_bytes(data[: len(data) // 2])
    write_track_table(tmp_path / "table.root", 100, seed=1)
    with uproot.recreate(tmp_path / "plain.root") as file:
        file["metaData"] = "no directories"
    store = tmp_path / "store"
    for name, error in (
        ("cut.root", CorruptFile),
        ("absent.root", InputMissing),
        ("table.root", NoTables),
        ("plain.root", NoTables),
    ):
        with pytest.raises(error, match=name):
            produce([good, tmp_path / name], store / "tracks.root")
        assert not store.exists() or list(store.iterdir()) == []


def test_damaged_basket_is_named(tmp_path):
    path = write_raw(tmp_path / "AO2D.root", {"DF_1": raw_tables(3000)})
    with uproot.open(path) as file:
        start = int(file["DF_1/O2track_iu"]["fTgl"].member("fBasketSeek")[0])
    flip_bytes(path, start + 90, 30)
    with pytest.raises(CorruptFile, match=r"AO2D\.root: DF_1/O2track_iu: damaged column fTgl"):
        produce(path, tmp_path / "tracks.root")


def test_full_disk_is_named_and_leaves_nothing(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system")
    try:
        write_ao2d(tmp_path / "AO2D.root", 20_000, seed=1, frames=2)
        with pytest.raises(DiskFull, match=r"tracks\.root"):
            produce(tmp_path / "AO2D.root", place / "tracks.root")
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)
