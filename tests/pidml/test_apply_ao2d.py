"""Applying a bundle to AO2D files: the tracks and scores that a track table made of them would give."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from support.scores import CERTAINTIES, read_root, stacked
from support.small_bundle import changed_bundle, make_bundle
from track_files import make_columns, write_raw, write_tables

from pidml import tracks
from pidml.apply import apply_bundle
from pidml.errors import BadValues, MissingColumn
from pidml.export import Bundle
from pidml.producer.native import produce_native
from pidml.simulation import RawFormat
from pidml.simulation.ao2d import simulate_frame, write_ao2d


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(folder):
    return Bundle.open(folder, threads=1)


def raw_tables():
    """The tables of one directory as plain arrays that a test may change."""
    tables = simulate_frame(50, np.random.default_rng(1), RawFormat()).tables
    return {name: {k: v.copy() for k, v in c.items() if isinstance(v, np.ndarray)} for name, c in tables.items()}


@pytest.fixture(scope="module")
def ao2d(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "AO2D.root"
    write_ao2d(path, 900, 5, frames=3)
    return path


def test_ao2d_files_give_what_the_producers_tables_give(bundle, ao2d, tmp_path):
    """As data: every global track. As simulation: those with a particle; each is found again by its raw row."""
    summary = apply_bundle(bundle, [ao2d], tmp_path / "scores.root", chunk=50)
    scores = read_root(tmp_path / "scores.root")
    certainties = stacked(scores, CERTAINTIES)
    produce_native([ao2d], tmp_path / "data.root", simulation=False, field=0.5)
    apply_bundle(bundle, [tmp_path / "data.root"], tmp_path / "of_table.root")
    table = read_root(tmp_path / "of_table.root")
    np.testing.assert_allclose(certainties, stacked(table, CERTAINTIES), atol=1e-6)
    for name in ("fDataFrame", "fP", "fPt", "fPz", "fSign", "fMlMissing"):
        np.testing.assert_array_equal(scores[name], table[name])
    with_particle = scores["fPdgCode"] != 0
    assert 0 < np.count_nonzero(~with_particle) < 0.1 * len(with_particle)
    assert np.count_nonzero(with_particle) == 900
    produced = produce_native([ao2d], tmp_path / "mc.root", simulation=True, field=0.5)
    assert produced.written == 900
    apply_bundle(bundle, [tmp_path / "mc.root"], tmp_path / "of_mc.root")
    of_mc = read_root(tmp_path / "of_mc.root")
    np.testing.assert_allclose(certainties[with_particle], stacked(of_mc, CERTAINTIES), atol=1e-6)
    np.testing.assert_array_equal(scores["fPdgCode"][with_particle], of_mc["fPdgCode"])
    assert summary.tracks == len(certainties)
    assert summary.rows_read == produced.read
    with uproot.open(ao2d) as file:
        for frame in set(scores["fDataFrame"]):
            chosen = scores["fDataFrame"] == frame
            raw = file[f"DF_{frame}/O2track_iu"]["fSigned1Pt"].array(library="np")[scores["fRow"][chosen]]
            np.testing.assert_array_equal(np.sign(raw), scores["fSign"][chosen])


@pytest.mark.parametrize("what", ["no rows", "none selected"])
def test_ao2d_files_without_a_track_make_an_empty_table(bundle, tmp_path, what):
    tables = raw_tables()
    of_tracks = [name for name in tables if name.startswith(("O2track", "O2mctracklabel"))]
    if what == "no rows":
        tables |= {name: {key: values[:0] for key, values in tables[name].items()} for name in of_tracks}
    else:
        tables["O2track_iu"]["fTgl"][:] = 5
    path = write_raw(tmp_path / "AO2D.root", {"DF_1": tables})
    summary = apply_bundle(bundle, [path], tmp_path / "scores.root")
    assert summary.tracks == 0
    assert (summary.rows_read == 0) == (what == "no rows")
    assert len(read_root(tmp_path / "scores.root")["fP"]) == 0


def test_an_ao2d_file_with_too_many_impossible_values_is_refused(bundle, tmp_path):
    tables = raw_tables()
    tables["O2track_iu"]["fSnp"][:3] = np.nan
    path = write_raw(tmp_path / "AO2D.root", {"DF_1": tables})
    with pytest.raises(BadValues, match=r"AO2D\.root: 3 of"):
        apply_bundle(bundle, [path], tmp_path / "scores.root")
    assert not (tmp_path / "scores.root").exists()


def test_ao2d_files_and_tables_mix(bundle, ao2d, tmp_path):
    table = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(40)})
    done = []
    summary = apply_bundle(
        bundle, [table, ao2d, table], tmp_path / "scores.parquet", progress=lambda *given: done.append(given)
    )
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert sorted(set(scores["fFile"].to_pylist())) == [0, 1, 2]
    first, last = (scores.filter(scores["fFile"].to_numpy() == number) for number in (0, 2))
    assert first.drop_columns("fFile").equals(last.drop_columns("fFile"))
    assert "fPdgCode" in scores.column_names
    assert done[-1] == (summary.rows_read, summary.rows_read)
    assert done == sorted(done)


def test_columns_that_the_native_producer_does_not_make_are_named(folder, ao2d, tmp_path):
    content = json.dumps({"columns_for_training": [*tracks.FEATURES, "fTPCNSigmaPi"]}).encode()
    wide = changed_bundle(folder, tmp_path / "wide", "columns_for_training.json", content)
    with pytest.raises(MissingColumn, match="native producer makes of AO2D tables no column fTPCNSigmaPi"):
        apply_bundle(wide, [ao2d], tmp_path / "scores.root")
