import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from track_files import flip_bytes, make_columns, old_encoding, write_tables, write_trees

from pidml import tracks
from pidml.data import root_files, track_tables
from pidml.errors import BadValues, CorruptFile, InputMissing, MissingColumn, NoTables, PidmlError


def read_all(path, names, chunk=1000):
    parts = [columns for _, columns in track_tables.iterate(track_tables.list_tables(path), names, chunk)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def test_tables_come_in_numeric_order_of_their_directories_and_other_keys_are_skipped(tmp_path):
    frames = {f"DF_{number}": make_columns(10 * number, number) for number in (10, 9, 100)}
    path = write_tables(tmp_path / "t.root", frames, others=["metaData", "DF_9/metaData", "parent/DF_7", "DF_x"])
    tables = track_tables.list_tables(path)
    assert [(table.frame, table.tracks) for table in tables] == [("DF_9", 90), ("DF_10", 100), ("DF_100", 1000)]
    assert all(table.simulation for table in tables)
    assert track_tables.kind_of_file(path) == "tracks"


def test_listing_tables_does_not_go_through_all_directories_for_each(tmp_path, monkeypatch):
    """Looking for an absent key makes uproot list the keys of all directories: quadratic in their number."""
    path = write_tables(tmp_path / "t.root", {f"DF_{number}": make_columns(2) for number in range(4)})
    original, whole = uproot.ReadOnlyDirectory.iterkeys, []

    def counted(self, *args, **options):
        if options.get("recursive", True):
            whole.append(self)
        return original(self, *args, **options)

    monkeypatch.setattr(uproot.ReadOnlyDirectory, "iterkeys", counted)
    assert len(track_tables.list_tables(path)) == 4
    assert whole == []


@pytest.mark.parametrize("tree", tracks.TREES)
def test_all_four_trees_are_read(tmp_path, tree):
    columns = make_columns(50, simulation=tracks.TREES[tree][0])
    path = write_tables(tmp_path / "t.root", {"DF_1": columns}, tree=tree)
    (table,) = track_tables.list_tables(path)
    assert (table.simulation, table.tree, table.tracks) == (tracks.TREES[tree][0], tree, 50)
    np.testing.assert_array_equal(read_all(path, ["fPx"])["fPx"], columns["fPx"])


def test_of_two_tables_of_the_same_tracks_the_larger_one_counts(tmp_path):
    columns = make_columns(20)
    path = tmp_path / "t.root"
    full = columns | {"fTPCNSigmaPi": columns["fPx"]}
    write_trees(path, [("DF_1/O2pidtracksmcml", columns), ("DF_1/O2pidtracksmc", full)])
    assert [table.tree for table in track_tables.list_tables(path)] == ["O2pidtracksmc"]


def test_the_newest_cycle_of_a_tree_counts(tmp_path):
    path = tmp_path / "t.root"
    write_trees(path, [("DF_1/O2pidtracksmcml", make_columns(size, seed=size)) for size in (20, 30)])
    (table,) = track_tables.list_tables(path)
    assert table.tracks == 30
    np.testing.assert_array_equal(read_all(path, ["fPx"])["fPx"], make_columns(30, seed=30)["fPx"])


@pytest.mark.parametrize("chunk", [1, 7, 100, 10_000])
def test_chunks_hold_at_most_what_was_asked_for_and_all_tracks_in_order(tmp_path, chunk):
    frames = {f"DF_{number}": make_columns(90, number) for number in (1, 2)}
    path = write_tables(tmp_path / "t.root", frames, baskets=4)
    sizes = []
    for _, columns in track_tables.iterate(track_tables.list_tables(path), ["fP"], chunk):
        sizes.append(len(columns["fP"]))
    assert max(sizes) <= chunk
    both = np.concatenate([columns["fP"] for columns in frames.values()])
    np.testing.assert_array_equal(read_all(path, ["fP"], chunk)["fP"], both)


def test_missing_values_of_both_encodings_come_out_as_nan_and_all_columns_as_float32(tmp_path):
    columns = make_columns(500)
    names = [name for name in columns if name != "fPdgCode"]
    new = read_all(write_tables(tmp_path / "new.root", {"DF_1": columns}), names)
    old = read_all(write_tables(tmp_path / "old.root", {"DF_1": old_encoding(columns)}), names)
    for name in names:
        assert new[name].dtype == np.float32
        np.testing.assert_array_equal(new[name], old[name])
    np.testing.assert_array_equal(np.isnan(new["fTOFSignal"]), np.isnan(columns["fTOFSignal"]))
    np.testing.assert_array_equal(np.isnan(new["fTRDPattern"]), columns["fTRDPattern"] == 0)
    assert np.isnan(new["fBeta"]).any()
    assert (~np.isnan(new["fBeta"])).any()


def test_column_names_of_older_files_are_understood(tmp_path):
    columns = make_columns(20) | {"fTPCExpSignalDiffKa": np.arange(20, dtype=np.float32)}
    path = write_tables(tmp_path / "t.root", {"DF_1": columns}, tree="O2pidtracksmc")
    np.testing.assert_array_equal(read_all(path, ["fTpcExpSignalDiffKa"])["fTpcExpSignalDiffKa"], np.arange(20))


@pytest.mark.parametrize("place", ["metaData", "DF_1/metaData"])
def test_objects_of_classes_that_cannot_be_read_are_skipped(tmp_path, place):
    path = write_tables(tmp_path / "t.root", {"DF_1": make_columns(20)}, others=[place])
    # uproot writes no TMap: give the text another class, of a name as long as its own.
    data = path.read_bytes()
    assert data.count(b"TObjString") >= 2
    path.write_bytes(data.replace(b"TObjString", b"TMapOfText"))
    with uproot.open(path) as file:
        assert file.classname_of(place) == "TMapOfText"
    assert track_tables.kind_of_file(path) == "tracks"
    assert [(table.tracks, table.likelihood_known) for table in track_tables.list_tables(path)] == [(20, False)]
    assert len(read_all(path, ["fP"])["fP"]) == 20


def test_missing_column_names_file_table_and_column(tmp_path):
    columns = make_columns(20)
    del columns["fDcaXY"]
    path = write_tables(tmp_path / "t.root", {"DF_3": columns})
    with pytest.raises(MissingColumn, match=r"t\.root: DF_3/O2pidtracksmcml has no column fDcaXY"):
        read_all(path, ["fP", "fDcaXY"])


def test_column_of_lists_is_refused(tmp_path):
    path = write_trees(tmp_path / "t.root", [("DF_1/O2pidtracksmcml", {"fP": np.ones((5, 3), np.float32)})])
    with pytest.raises(BadValues, match=r"DF_1/O2pidtracksmcml: column fP is not one number per track"):
        read_all(path, ["fP"])


def test_file_without_frames_or_tables_is_named(tmp_path):
    with uproot.recreate(tmp_path / "none.root") as file:
        file["metaData"] = "text"
    write_trees(tmp_path / "other.root", [("DF_1/O2collision", {"fPosX": np.zeros(3)})])
    for read in (track_tables.kind_of_file, track_tables.list_tables):
        with pytest.raises(NoTables, match=r"none\.root: no DF_ directories"):
            read(tmp_path / "none.root")
        with pytest.raises(NoTables, match=r"other\.root: .*DF_ director"):
            read(tmp_path / "other.root")


@pytest.mark.parametrize("tree", ["O2track", "O2track_iu", "O2track_iu_001"])
def test_ao2d_files_are_recognised(tmp_path, tree):
    bcs, points = {"fRunNumber": np.zeros(3, np.int32)}, {"fX": np.zeros(3, np.float32)}
    write_trees(tmp_path / "a.root", [("DF_1/O2bc_001", bcs), (f"DF_2/{tree}", points)])
    assert track_tables.kind_of_file(tmp_path / "a.root") == "ao2d"


def test_absent_and_foreign_files_are_named(tmp_path):
    with pytest.raises(InputMissing, match=r"absent\.root"):
        track_tables.kind_of_file(tmp_path / "absent.root")
    for name, content, says in (
        ("empty.root", b"", "empty"),
        ("text.root", b"<html>503</html>" * 100, "not a ROOT file: it begins with b'<htm'"),
        ("word.root", b"hello", "not a ROOT file: it begins with b'hell'"),
        ("short.root", b"root\0\0", "truncated"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptFile, match=f"{name}.*{says}"):
            track_tables.kind_of_file(tmp_path / name)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_named(tmp_path, part):
    path = write_tables(tmp_path / "cut.root", {"DF_1": make_columns(5000), "DF_2": make_columns(5000)})
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(CorruptFile, match=r"cut\.root"):
        read_all(path, ["fP"])


def test_damaged_basket_is_named_with_its_column(tmp_path):
    path = write_tables(tmp_path / "bad.root", {"DF_1": make_columns(5000)})
    with uproot.open(path) as file:
        branch = file["DF_1/O2pidtracksmcml"]["fDcaZ"]
        start = int(branch.member("fBasketSeek")[0])
    flip_bytes(path, start + 90, 30)  # behind the key of the basket: the header of its compressed data
    with pytest.raises(CorruptFile, match=r"bad\.root: DF_1/O2pidtracksmcml: damaged column fDcaZ"):
        read_all(path, ["fP", "fDcaZ"])


@pytest.mark.parametrize("place", [0, 2, 5])
def test_damaged_number_of_rows_is_found_at_once(tmp_path, place):
    path = write_tables(tmp_path / "rows.root", {"DF_1": make_columns(4321)})
    # The number stands, uncompressed, once in the tree's header and three times (the second counts) per column.
    parts = path.read_bytes().split(struct.pack(">q", 4321))
    assert len(parts) > 20
    numbers = [struct.pack(">q", 10**12 if index == place else 4321) for index in range(len(parts) - 1)] + [b""]
    path.write_bytes(b"".join(itertools.chain.from_iterable(zip(parts, numbers, strict=True))))
    with pytest.raises(CorruptFile, match=r"rows\.root: DF_1/O2pidtracksmcml announces .* rows"):
        read_all(path, ["fP"])


def test_column_that_ends_early_is_named():
    columns = {"fP": np.zeros(3), "fPt": np.zeros(2)}
    with pytest.raises(CorruptFile, match=r"a\.root: DF_1/O2track: column fPt has 2 rows instead of 3"):
        root_files.check_lengths(Path("a.root"), "DF_1/O2track", columns, 3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), count=st.integers(1, 40))
def test_flipped_bytes_anywhere_give_a_named_error_or_a_readable_file(tmp_path, position, count):
    path = write_tables(tmp_path / "f.root", {"DF_1": make_columns(300), "DF_2": make_columns(300)})
    size = path.stat().st_size
    start = int(position * size)
    flip_bytes(path, start, min(count, size - start))
    try:
        values = read_all(path, ["fP", "fTPCSignal"])
        outcome = "f.root is readable" if len(values["fP"]) == len(values["fTPCSignal"]) else "columns differ"
    except PidmlError as error:
        outcome = error.what
    assert "f.root" in outcome


def test_reading_can_be_left_early(tmp_path):
    path = write_tables(tmp_path / "t.root", {"DF_1": make_columns(100)}, baskets=5)
    steps = track_tables.iterate(track_tables.list_tables(path), ["fP"], 10)
    assert len(next(steps)[1]["fP"]) == 10
    steps.close()
