"""Merging of track tables, and drawing of collisions and tracks."""

import numpy as np
import pytest
import uproot

from pidml.data import track_tables
from pidml.data.track_tables import list_tables
from pidml.errors import ProducerError
from pidml.producer import merge as module
from pidml.producer.merge import COLLISION, Drawing, merge
from pidml.producer.o2physics import collisions_of
from pidml.simulation import write_ao2d, write_track_table
from pidml.simulation.track_tables import TableFormat

TREE = "O2pidtracksmcml"


def table(path, frames, collisions=True, tracks=60):
    """Tracks numbered in fP, five to a collision."""
    with uproot.recreate(path) as file:
        for index, frame in enumerate(frames):
            columns = {
                "fP": np.arange(tracks, dtype=np.float32) + 1000 * index,
                "fTRDPattern": np.ones(tracks, np.uint8),
            }
            if collisions:
                columns[COLLISION] = np.repeat(np.arange(tracks // 5, dtype=np.int32), 5)
            file.mktree(f"{frame}/{TREE}", {name: values.dtype for name, values in columns.items()}).extend(columns)
    return list_tables(path)


def content(path, frame):
    with uproot.open(path) as file:
        return file[f"{frame}/{TREE}"].arrays(library="np")


def everything(path):
    with uproot.open(path) as file:
        return {
            key.split("/")[0]: content(path, key.split("/")[0])
            for key in file.keys(filter_classname="TTree", cycle=False)
        }


def test_merged_tables_keep_every_column_type_and_row(tmp_path):
    write_track_table(tmp_path / "a.root", 90, 1, frames=3, form=TableFormat("O2pidtracksmc"))
    write_track_table(tmp_path / "b.root", 50, 2, frames=2, form=TableFormat("O2pidtracksmc"))
    tables = list_tables(tmp_path / "a.root") + list_tables(tmp_path / "b.root")
    facts = merge(tables, tmp_path / "out.root")
    assert facts["frames"] == {"DF_1": 30, "DF_2": 30, "DF_3": 30, "DF_4": 25, "DF_5": 25}
    with uproot.open(tmp_path / "b.root") as before, uproot.open(tmp_path / "out.root") as after:
        old, new = before["DF_2/O2pidtracksmc"], after["DF_5/O2pidtracksmc"]
        assert old.typenames() == new.typenames()
        for name, values in old.arrays(library="np").items():
            np.testing.assert_array_equal(new[name].array(library="np"), values)


def test_tables_longer_than_a_chunk_are_copied_piecewise(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    tables = table(tmp_path / "a.root", ["DF_3"])
    merge(tables, tmp_path / "out.root")
    np.testing.assert_array_equal(content(tmp_path / "out.root", "DF_3")["fP"], np.arange(60))
    drawn = merge(tables, tmp_path / "drawn.root", Drawing(tracks=20, seed=3))
    monkeypatch.setattr(module, "CHUNK", track_tables.CHUNK)
    merge(tables, tmp_path / "at once.root", Drawing(tracks=20, seed=3))
    pieces, whole = (content(tmp_path / name, "DF_3")["fP"] for name in ("drawn.root", "at once.root"))
    np.testing.assert_array_equal(pieces, whole)
    assert drawn["written"] == 20


def test_an_empty_table_stays_an_empty_table(tmp_path):
    merge(table(tmp_path / "a.root", ["DF_1", "DF_2"], tracks=0), tmp_path / "out.root")
    assert [each.tracks for each in list_tables(tmp_path / "out.root")] == [0, 0]


@pytest.mark.parametrize("wanted", [1, 7, 23, 24, 100])
def test_exactly_the_collisions_asked_for_are_kept_whole(tmp_path, wanted):
    tables = table(tmp_path / "a.root", ["DF_1", "DF_2"])
    facts = merge(tables, tmp_path / "out.root", Drawing(events=wanted, seed=5))
    kept = {(frame, c): n for frame, columns in everything(tmp_path / "out.root").items()
            for c, n in zip(*np.unique(columns[COLLISION], return_counts=True), strict=True)}  # fmt: skip
    assert len(kept) == min(wanted, 24)
    assert set(kept.values()) == {5}
    assert facts["drawn"]["events"] == {
        "asked": wanted, "available": 24, "kept": min(wanted, 24), "unit": "collisions",
    }  # fmt: skip


def test_tracks_are_drawn_from_the_collisions_that_were_drawn(tmp_path):
    tables = table(tmp_path / "a.root", ["DF_1", "DF_2"])
    merge(tables, tmp_path / "events.root", Drawing(events=6, seed=5))
    facts = merge(tables, tmp_path / "both.root", Drawing(events=6, tracks=11, seed=5))
    assert facts["drawn"]["tracks"] == {"asked": 11, "available": 30, "kept": 11}
    events, both = (
        {value for columns in everything(tmp_path / name).values() for value in columns["fP"]}
        for name in ("events.root", "both.root")
    )
    assert both < events
    assert len(both) == 11


def test_the_seed_decides(tmp_path):
    tables = table(tmp_path / "a.root", ["DF_1", "DF_2"])
    found = []
    for seed in (1, 1, 2):
        merge(tables, tmp_path / "out.root", Drawing(tracks=30, seed=seed))
        found.append(np.concatenate([columns["fP"] for columns in everything(tmp_path / "out.root").values()]))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_every_track_is_as_likely_as_any_other(tmp_path):
    tables = table(tmp_path / "a.root", ["DF_1"], tracks=20) + table(tmp_path / "b.root", ["DF_2"], tracks=60)
    counts, draws = np.zeros(80), 80
    for seed in range(draws):
        merge(tables, tmp_path / "out.root", Drawing(tracks=20, seed=seed))
        kept = everything(tmp_path / "out.root")
        counts[kept["DF_1"]["fP"].astype(int)] += 1
        counts[20 + kept["DF_2"]["fP"].astype(int)] += 1
    expected = draws / 4
    # χ² with about 79 degrees of freedom; variances are smaller than Poisson's, by 1 − 1/4, as draws do not repeat.
    chi2 = float(np.sum((counts - expected) ** 2) / (expected * 0.75))
    assert 45 < chi2 < 125
    assert abs(counts[:20].sum() - draws * 5) < 5 * np.sqrt(draws * 20 * 0.25 * 0.75)


def test_without_the_collision_whole_directories_are_drawn(tmp_path):
    tables = table(tmp_path / "a.root", [f"DF_{n}" for n in range(1, 11)], collisions=False, tracks=10)
    counts = {f"DF_{n}": 10 for n in range(1, 11)}
    facts = merge(tables, tmp_path / "out.root", Drawing(events=25, seed=1, collisions=counts))
    assert facts["drawn"]["events"] == {"asked": 25, "available": 100, "kept": 30, "unit": "directories"}
    assert set(facts["frames"].values()) == {10}
    assert len(facts["frames"]) == 3
    assert list(facts["frames"]) != ["DF_1", "DF_2", "DF_3"]
    merge(tables, tmp_path / "all.root", Drawing(events=1000, collisions=counts))
    assert len(list_tables(tmp_path / "all.root")) == 10
    with pytest.raises(ProducerError, match="no column fIndexCollisions"):
        merge(tables, tmp_path / "none.root", Drawing(events=5))
    assert not (tmp_path / "none.root").exists()


def test_collisions_are_counted_in_the_inputs(tmp_path):
    frames = []
    for number in (1, 2):
        path = tmp_path / f"{number}.root"
        frames += write_ao2d(path, 40, seed=number, frames=2, first_frame=number, keep_frames=True)
    sizes = [len(frame.tables["O2collision_001"]["fPosX"]) for frame in frames]
    found = collisions_of([tmp_path / "1.root", tmp_path / "2.root"])
    assert found == {"DF_1": sizes[0], "DF_2": sizes[1] + sizes[2], "DF_3": sizes[3]}


def test_tables_that_do_not_fit_together_are_refused(tmp_path):
    a, b = table(tmp_path / "a.root", ["DF_1"]), table(tmp_path / "b.root", ["DF_1"], collisions=False)
    with pytest.raises(ProducerError, match=r"b.root: DF_1/O2pidtracksmcml has other columns than .*a.root"):
        merge(a + b, tmp_path / "out.root")


def test_a_directory_name_that_is_taken_becomes_the_next_free_one(tmp_path):
    tables = table(tmp_path / "a.root", ["DF_1", "DF_7"]) + table(tmp_path / "b.root", ["DF_1", "DF_8"])
    assert list(merge(tables, tmp_path / "out.root")["frames"]) == ["DF_1", "DF_7", "DF_9", "DF_8"]
