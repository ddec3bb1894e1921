"""Applying a bundle to files: formats, AO2D files, records, bounded memory, and all that can be wrong."""

import builtins
import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from onnx import TensorProto, helper, numpy_helper
from support.scores import ACCEPTED, CERTAINTIES, read_root, stacked
from support.small_bundle import changed_bundle, make_bundle
from track_files import flip_bytes, make_columns, write_tables

from pidml import tracks
from pidml.apply import apply_bundle, read_provenance
from pidml.errors import (
    BadValues,
    BundleError,
    CorruptFile,
    DiskFull,
    InputMissing,
    MissingColumn,
    NoTables,
    SpecError,
    StoreError,
    ToolMissing,
)
from pidml.export import Bundle
from pidml.species import TARGET_NAMES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(folder):
    return Bundle.open(folder, threads=1)


def test_root_and_parquet_say_the_same_whatever_the_chunk(bundle, tmp_path):
    columns = {"DF_2": make_columns(700, 1), "DF_10": make_columns(300, 2)}
    given = write_tables(tmp_path / "tracks.root", columns, baskets=3)
    summary = apply_bundle(bundle, [given], tmp_path / "scores.root", chunk=64)
    apply_bundle(bundle, [given], tmp_path / "scores.parquet", chunk=1000)
    root, parquet = read_root(tmp_path / "scores.root"), pq.read_table(tmp_path / "scores.parquet")
    assert list(root) == parquet.column_names
    for name in root:
        values = parquet[name].to_numpy()
        assert values.dtype == root[name].dtype, name
        if name in CERTAINTIES:  # batches of another size are added up in another order
            np.testing.assert_allclose(values, root[name], atol=1e-6)
        else:
            np.testing.assert_array_equal(values, root[name])
    assert root["fDataFrame"].tolist() == [2] * 700 + [10] * 300
    assert root["fRow"].tolist() == [*range(700), *range(300)]
    for name in ("fP", "fPt", "fPx", "fPy", "fPz", "fSign", "fPdgCode", "fIsPhysicalPrimary"):
        np.testing.assert_array_equal(root[name], np.concatenate([each[name] for each in columns.values()]))
        assert root[name].dtype == tracks.COLUMNS[name].dtype
    expected = np.concatenate([bundle.predict_columns(each) for each in columns.values()])
    np.testing.assert_allclose(stacked(root, CERTAINTIES), expected, atol=1e-6)
    assert summary.tracks == 1000
    np.testing.assert_array_equal(stacked(root, ACCEPTED).sum(axis=0), list(summary.accepted.values()))
    times = stacked(root, ACCEPTED).sum(axis=1)
    assert (summary.none, summary.several) == (np.count_nonzero(times == 0), np.count_nonzero(times > 1))
    assert summary.missing == {
        name: np.count_nonzero(root["fMlMissing"] == pattern) for pattern, name in tracks.PATTERN_NAMES.items()
    }


@pytest.mark.parametrize("name", ["scores.root", "scores.parquet"])
def test_the_file_says_how_it_came_to_be(bundle, folder, tmp_path, name):
    given = [write_tables(tmp_path / f"{n}.root", {"DF_1": make_columns(50, n)}) for n in (1, 2)]
    summary = apply_bundle(bundle, given, tmp_path / name, thresholds={"kaon": 0.0, "proton": 1.0})
    found = read_provenance(tmp_path / name)
    assert found["bundle"]["manifest_sha256"] == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert [each["path"] for each in found["inputs"]] == [str(path) for path in given]
    assert [each["rows"] for each in found["inputs"]] == [50, 50]
    assert len({each["uuid"] for each in found["inputs"]}) == 2
    thresholds = json.loads((folder / "thresholds.json").read_text())
    assert found["thresholds"] == {**thresholds, "kaon": 0.0, "proton": 1.0}
    assert found["summary"] == summary.as_dict()
    assert summary.accepted["kaon"] == 100
    assert summary.accepted["proton"] < 100


def test_small_directories_are_written_together(bundle, tmp_path):
    sizes = [7, 0, 30, 12, 60, 1, 5]
    given = write_tables(tmp_path / "tracks.root", {f"DF_{n}": make_columns(size, n) for n, size in enumerate(sizes)})
    apply_bundle(bundle, [given, given], tmp_path / "scores.parquet", chunk=50)
    file = pq.ParquetFile(tmp_path / "scores.parquet")
    groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert groups == [49, 50, 10 + 1 + 5 + 7 + 0, 42, 50, 16]
    frames = [frame for frame, size in enumerate(sizes) for _ in range(size)]
    scores = file.read()
    assert scores["fDataFrame"].to_pylist() == frames * 2
    assert scores["fRow"].to_pylist() == [row for size in sizes for row in range(size)] * 2
    assert scores["fFile"].to_pylist() == [0] * len(frames) + [1] * len(frames)


def test_no_tracks_make_an_empty_table(bundle, tmp_path):
    given = write_tables(tmp_path / "none.root", {"DF_1": make_columns(0)})
    for name in ("scores.root", "scores.parquet"):
        summary = apply_bundle(bundle, [given], tmp_path / name)
        assert summary.tracks == 0
        assert read_provenance(tmp_path / name)["summary"]["tracks"] == 0
    assert {len(values) for values in read_root(tmp_path / "scores.root").values()} == {0}
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 0


def test_truth_is_left_out_where_a_file_lacks_it(bundle, tmp_path):
    simulated = write_tables(tmp_path / "a.root", {"DF_1": make_columns(5)})
    data = write_tables(tmp_path / "b.root", {"DF_1": make_columns(5, simulation=False)}, tree="O2pidtracksdataml")
    apply_bundle(bundle, [simulated, data], tmp_path / "scores.root")
    scores = read_root(tmp_path / "scores.root")
    assert not {"fPdgCode", "fIsPhysicalPrimary"} & set(scores)
    assert scores["fFile"].tolist() == [0] * 5 + [1] * 5


_PEAK = """
import sys
from pathlib import Path
from pidml.apply import apply_bundle
from pidml.export import Bundle
from pidml.provenance import peak_memory_bytes
bundle, given, out = map(Path, sys.argv[1:])
print(apply_bundle(Bundle.open(bundle, threads=1), [given], out, chunk=10_000).tracks, peak_memory_bytes())
"""


@pytest.mark.parametrize("suffix", ["root", "parquet"])
def test_memory_does_not_grow_with_the_file(folder, tmp_path, suffix):
    """A file ten times as large, 60 MB in memory, takes a few MB more: what the output's list of baskets holds."""
    columns, peaks = make_columns(50_000), []
    for frames in (1, 10):
        given = write_tables(tmp_path / f"{frames}.root", {f"DF_{n}": columns for n in range(frames)}, baskets=5)
        command = [sys.executable, "-c", _PEAK, str(folder), str(given), str(tmp_path / f"{frames}.scores.{suffix}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert int(done[0]) == 50_000 * frames
        peaks.append(int(done[1]))
    in_memory = sum(values.nbytes for values in columns.values()) * 9
    assert in_memory > 30e6
    assert peaks[1] - peaks[0] < 10e6


def test_a_column_that_the_bundle_needs_is_named(tmp_path, bundle):
    columns = make_columns(5)
    good = write_tables(tmp_path / "good.root", {"DF_1": columns})
    less = {name: values for name, values in columns.items() if name not in ("fDcaZ", "fBeta")}
    bad = write_tables(tmp_path / "bad.root", {"DF_1": columns, "DF_2": less})
    with pytest.raises(MissingColumn, match=r"bad\.root: DF_2/O2pidtracksmcml has no column fBeta, fDcaZ"):
        apply_bundle(bundle, [good, bad], tmp_path / "scores.root")
    assert not list(tmp_path.glob("*scores*"))


def damaged(tmp_path):
    path = write_tables(tmp_path / "damaged.root", {"DF_1": make_columns(3000)})
    flip_bytes(path, path.stat().st_size // 3, 400)
    return path


def text_file(tmp_path):
    path = tmp_path / "notes.root"
    path.write_text("no ROOT file, but long enough to be looked at" * 10)
    return path


def without_tables(tmp_path):
    path = tmp_path / "other.root"
    with uproot.recreate(path) as file:
        file["DF_1/O2something"] = {"x": np.arange(3)}
    return path


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda folder: folder / "absent.root", InputMissing),
        (text_file, CorruptFile),
        (damaged, CorruptFile),
        (without_tables, NoTables),
    ],
    ids=["absent", "no ROOT file", "damaged", "no tables"],
)
def test_files_that_cannot_be_used_are_named_and_leave_nothing(bundle, tmp_path, make, error):
    path = make(tmp_path)
    with pytest.raises(error, match=path.name):
        apply_bundle(bundle, [path], tmp_path / "out" / "scores.root")
    assert not list(tmp_path.glob("out/*"))


def test_an_output_is_replaced_only_when_asked(bundle, tmp_path):
    given, out = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(5)}), tmp_path / "scores.root"
    out.write_text("precious")
    with pytest.raises(StoreError, match="exists already"):
        apply_bundle(bundle, [given], out)
    assert out.read_text() == "precious"
    apply_bundle(bundle, [given], out, overwrite=True)
    assert len(read_root(out)["fP"]) == 5
    with pytest.raises(SpecError, match="one of the inputs"):
        apply_bundle(bundle, [given], given, overwrite=True)
    with pytest.raises(StoreError, match="is a folder"):
        apply_bundle(bundle, [given], tmp_path, fmt="root", overwrite=True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"thresholds": {"muon": 0.5}}, "muon.*no such species"),
        ({"thresholds": {"kaon": 1.5}}, r"kaon is 1\.5"),
        ({"thresholds": {"kaon": float("nan")}}, "kaon is nan"),
        ({"out": "scores.csv"}, "suffix tells no format"),
        ({"fmt": "csv"}, "no format is called 'csv'"),
        ({"files": []}, "no files"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(bundle, tmp_path, options, named):
    given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(5)})
    files, out = options.pop("files", [given]), tmp_path / options.pop("out", "scores.root")
    with pytest.raises(SpecError, match=named):
        apply_bundle(bundle, files, out, **options)
    assert not out.exists()


def test_without_pyarrow_root_is_still_written(bundle, tmp_path, monkeypatch):
    given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(5)})
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ToolMissing, match="pyarrow"):
        apply_bundle(bundle, [given], tmp_path / "scores.parquet")
    apply_bundle(bundle, [given], tmp_path / "scores.root")


@pytest.mark.parametrize("suffix", ["root", "parquet"])
def test_a_full_disk_leaves_nothing(bundle, tmp_path, suffix):
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("mounting a small file system needs privileges")
    try:
        given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(30_000)})
        with pytest.raises(DiskFull, match=rf"scores\.{suffix}"):
            apply_bundle(bundle, [given], place / f"scores.{suffix}", chunk=5000)
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


def times_zero():
    """A network whose certainties are sums of zero times its features squared; a huge one makes them NaN."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", w]) for n, w in (("features", 16), ("y", 6)))
    constants = [numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in (("zero", ()), ("w", (16, 6)))]
    nodes = [
        helper.make_node("IsNaN", ["features"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "features"], ["known"]),
        helper.make_node("Mul", ["known", "known"], ["squared"]),
        helper.make_node("MatMul", ["squared", "w"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "sums", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def test_tracks_whose_scores_are_no_numbers_are_counted_and_not_accepted(folder, tmp_path):
    """The networks of this package answer for huge values too; others may not."""
    columns = make_columns(20)
    columns["fDcaXY"][3] = 1e25
    given = write_tables(tmp_path / "tracks.root", {"DF_1": columns})
    broken = changed_bundle(folder, tmp_path / "broken", "pid.onnx", times_zero())
    summary = apply_bundle(broken, [given], tmp_path / "scores.root", thresholds=dict.fromkeys(TARGET_NAMES, 0.0))
    scores = read_root(tmp_path / "scores.root")
    odd = np.isnan(stacked(scores, CERTAINTIES)).all(axis=1)
    assert np.flatnonzero(odd).tolist() == [3]
    assert summary.not_finite == summary.none == 1
    np.testing.assert_array_equal(stacked(scores, ACCEPTED).all(axis=1), ~odd)


def test_a_damaged_bundle_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    flip_bytes(copy / "pid.onnx", 1000)
    with pytest.raises(BundleError, match=r"pid\.onnx: not the file that the manifest describes"):
        Bundle.open(copy)


def test_other_files_have_no_provenance(tmp_path):
    given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(5)})
    with pytest.raises(CorruptFile, match="no provenance"):
        read_provenance(given)
    with pytest.raises(InputMissing):
        read_provenance(tmp_path / "absent.root")


def test_a_file_with_infinite_values_is_refused_by_name_and_leaves_nothing(bundle, tmp_path):
    fine, columns = make_columns(30), make_columns(400)
    columns["fTPCSignal"][7::2] = -np.inf
    columns["fDcaZ"][9] = np.inf
    given = write_tables(tmp_path / "tracks.root", {"DF_1": fine, "DF_2": columns})
    said = r"tracks\.root: 197 of 430 tracks have infinite values \(first of all DF_2/O2pidtracksmcml fTPCSignal, 197 r"
    with pytest.raises(BadValues, match=said):
        apply_bundle(bundle, [given], tmp_path / "scores.root", chunk=50)
    assert [path.name for path in tmp_path.iterdir()] == ["tracks.root"]


def test_few_tracks_with_infinite_values_get_no_score(bundle, tmp_path):
    columns = make_columns(20_000)
    columns["fTPCSignal"][[3, 15_000]] = np.inf
    given = write_tables(tmp_path / "tracks.root", {"DF_1": columns})
    every = dict.fromkeys(TARGET_NAMES, 0.0)
    summary = apply_bundle(bundle, [given], tmp_path / "scores.root", thresholds=every, chunk=7000)
    scores = read_root(tmp_path / "scores.root")
    assert np.flatnonzero(np.isnan(stacked(scores, CERTAINTIES)).all(axis=1)).tolist() == [3, 15_000]
    assert (summary.not_finite, summary.none, summary.tracks) == (2, 2, 20_000)
    assert summary.warnings == ["2 tracks have a certainty that is no number"]
