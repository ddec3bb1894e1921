import numpy as np
import pytest
import uproot

from pidml import simulation, tracks
from pidml.errors import InputMissing, SpecError
from pidml.simulation import TableFormat, sandbox, simulate_files, write_track_table


def read(path, tree="O2pidtracksmcml"):
    with uproot.open(path) as file:
        return {
            name: file[f"{name}/{tree}"].arrays(library="np")
            for name in file.keys(recursive=False, cycle=False)
            if name.startswith("DF_")
        }


@pytest.mark.parametrize("tree", tracks.TREES)
def test_every_track_table_has_exactly_its_columns(tmp_path, tree):
    write_track_table(tmp_path / "t.root", 1000, 1, frames=3, form=TableFormat(tree))
    frames = read(tmp_path / "t.root", tree)
    assert [len(frame["fPt"]) for frame in frames.values()] == [334, 333, 333]
    assert list(frames) == ["DF_1", "DF_2", "DF_3"]
    expected = {"O2pidtracksmcml": 21, "O2pidtracksdataml": 19, "O2pidtracksmc": 63, "O2pidtracksdata": 61}
    frame = frames["DF_1"]
    assert len(frame) == expected[tree]
    for name, values in frame.items():
        assert values.dtype.newbyteorder("=") == np.dtype(tracks.COLUMNS[name].dtype), name


@pytest.mark.parametrize("old", [False, True])
def test_missing_values_are_encoded_as_newer_or_older_files_do(tmp_path, old):
    write_track_table(
        tmp_path / "t.root", 2000, 1, frames=1, form=TableFormat("O2pidtracksmc", old_missing=old, old_names=old)
    )
    table = read(tmp_path / "t.root", "O2pidtracksmc")["DF_1"]
    no_tof = table["fBeta"] == -999 if old else np.isnan(table["fBeta"])
    assert 0.5 < no_tof.mean() < 0.75
    np.testing.assert_array_equal(no_tof, table["fTOFNSigmaPi"] == -999)
    np.testing.assert_array_equal(np.isnan(table["fTRDSignal"]), table["fTRDPattern"] == 0)
    assert ("fTPCExpSignalDiffPi" in table) == old
    assert ("fTpcExpSignalDiffPi" in table) != old


def test_both_encodings_read_back_as_the_same_tracks(tmp_path):
    read_back = []
    for old in (False, True):
        write_track_table(tmp_path / f"{old}.root", 1000, 1, frames=1, form=TableFormat(old_missing=old))
        columns = {n: v.astype(np.float32) for n, v in read(tmp_path / f"{old}.root")["DF_1"].items()}
        tracks.normalise_missing(columns)
        read_back.append(columns)
    for name, values in read_back[0].items():
        np.testing.assert_array_equal(values, read_back[1][name])


def test_number_of_sigmas_is_a_standard_normal_for_the_true_species(tmp_path):
    write_track_table(tmp_path / "t.root", 50_000, 1, frames=1, form=TableFormat("O2pidtracksmc"))
    table = read(tmp_path / "t.root", "O2pidtracksmc")["DF_1"]
    for hypothesis, pdg in {"Pi": 211, "Ka": 321, "Pr": 2212}.items():
        mine = np.abs(table["fPdgCode"]) == pdg
        tpc, tof = table[f"fTPCNSigma{hypothesis}"][mine], table[f"fTOFNSigma{hypothesis}"][mine]
        assert np.std(tpc) == pytest.approx(1, abs=5 / np.sqrt(2 * len(tpc)))
        tof = tof[tof != -999]
        assert 0.92 < np.mean(np.abs(tof) < 3) < 0.998  # mismatches lie outside
        difference = table[f"fTpcExpSignalDiff{hypothesis}"] / table[f"fTPCExpSigma{hypothesis}"]
        np.testing.assert_allclose(difference, table[f"fTPCNSigma{hypothesis}"], rtol=1e-4, atol=1e-5)


def test_frames_larger_than_a_chunk_are_written_whole(tmp_path, monkeypatch):
    from pidml.simulation import track_tables

    monkeypatch.setattr(track_tables, "CHUNK", 100)
    write_track_table(tmp_path / "t.root", 2550, 1, frames=1)
    table = read(tmp_path / "t.root")["DF_1"]
    assert len(table["fPt"]) == 2550
    assert len(np.unique(table["fPt"])) > 2540


def test_unknown_tree_is_refused():
    with pytest.raises(SpecError, match="O2nothing"):
        TableFormat("O2nothing")


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    from pidml.simulation import track_tables

    calls = []

    def fail_later(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return simulation.generate_tracks(*args)

    monkeypatch.setattr(track_tables, "generate_tracks", fail_later)
    with pytest.raises(KeyboardInterrupt):
        write_track_table(tmp_path / "t.root", 100, 1, frames=3)
    assert list(tmp_path.iterdir()) == []


def test_simulated_files_share_the_tracks_out_and_differ(tmp_path):
    paths = simulate_files(tmp_path, 1000, files=3, fmt="tracks", seed=4, frames=2)
    assert [path.name for path in paths] == ["tracks_001.root", "tracks_002.root", "tracks_003.root"]
    tables = [read(path) for path in paths]
    assert [sum(len(f["fPt"]) for f in table.values()) for table in tables] == [334, 333, 333]
    assert [list(table) for table in tables] == [["DF_1", "DF_2"], ["DF_3", "DF_4"], ["DF_5", "DF_6"]]
    everything = np.concatenate([f["fPt"] for table in tables for f in table.values()])
    assert len(np.unique(everything)) > 990
    again = simulate_files(tmp_path / "again", 1000, files=3, fmt="tracks", seed=4, frames=2)
    np.testing.assert_array_equal(read(again[2])["DF_5"]["fPt"], tables[2]["DF_5"]["fPt"])


def test_simulated_ao2d_files_lie_in_numbered_directories(tmp_path):
    paths = simulate_files(tmp_path, 60, files=2, fmt="ao2d", seed=0, frames=3)
    assert [str(path.relative_to(tmp_path)) for path in paths] == ["001/AO2D.root", "002/AO2D.root"]
    with uproot.open(paths[1]) as file:
        assert [key for key in file.keys(recursive=False, cycle=False) if key != "metaData"] == ["DF_4", "DF_5", "DF_6"]


@pytest.mark.parametrize(
    "wrong", [{"tracks": 0}, {"files": 0}, {"frames": 0}, {"seed": -1}, {"files": 50, "tracks": 100}, {"fmt": "csv"}]
)
def test_senseless_requests_are_refused(tmp_path, wrong):
    with pytest.raises(SpecError):
        simulate_files(**({"out_dir": tmp_path, "tracks": 1000} | wrong))
    assert list(tmp_path.iterdir()) == []


def test_sandbox_names():
    lfns = sandbox.sandbox_lfns(4, run=1)
    assert lfns[3] == "/alice/sim/2026/LHC26sandbox/0/1/AOD/004/AO2D.root"
    assert all(sandbox.is_sandbox_lfn(lfn) for lfn in lfns)
    for other in (
        "/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root",
        "/alice/sim/2026/LHC26sandbox/0/1/AOD/000/AO2D.root",
        "/alice/sim/2026/LHC26sandbox/0/01/AOD/001/AO2D.root",
        lfns[0] + "\n",
        "/x/../" + lfns[0],
        "",
    ):
        assert not sandbox.is_sandbox_lfn(other)
    with pytest.raises(InputMissing):
        sandbox.sandbox_lfns(1000)


def test_sandbox_file_depends_on_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "TRACKS", 400)
    first, second = sandbox.sandbox_lfns(2, run=7)
    for name, lfn in (("a", first), ("b", first), ("c", second)):
        sandbox.write_sandbox_file(lfn, tmp_path / f"{name}.root")
    contents = {}
    for name, frame in (("a", 1001), ("b", 1001), ("c", 2001)):
        with uproot.open(tmp_path / f"{name}.root") as file:
            assert len(file.keys(recursive=False)) == 1 + sandbox.FRAMES
            contents[name] = file[f"DF_{frame}/O2track_iu"].arrays(library="np")
            assert np.all(file[f"DF_{frame}/O2bc_001"]["fRunNumber"].array(library="np") == 7)
    for column in contents["a"]:
        np.testing.assert_array_equal(contents["a"][column], contents["b"][column])
    assert not np.array_equal(contents["a"]["fSnp"][:50], contents["c"]["fSnp"][:50])
    with pytest.raises(InputMissing, match="nowhere"):
        sandbox.write_sandbox_file("/nowhere", tmp_path / "d.root")


def test_experimental_files_of_the_sandbox_have_no_truth_and_another_response(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "TRACKS", 4000)
    (measured,), (simulated,) = sandbox.sandbox_lfns(1, experimental=True), sandbox.sandbox_lfns(1)
    assert sandbox.is_sandbox_lfn(measured)
    signal = {}
    for lfn in (measured, simulated):
        sandbox.write_sandbox_file(lfn, tmp_path / "a.root")
        with uproot.open(tmp_path / "a.root") as file:
            names = {key.split(";")[0] for key in file["DF_1001"]}
            assert ("O2mctracklabel" in names) == (lfn == simulated)
            assert simulation.made_by_simulation(file) == (lfn == simulated)
            signal[lfn] = np.median(file["DF_1001/O2trackextra_002/fTPCSignal"].array(library="np"))
    assert signal[measured] / signal[simulated] == pytest.approx(1.05, abs=0.02)


def test_only_own_files_are_recognised_as_simulated(tmp_path):
    write_track_table(tmp_path / "own.root", 10, 1, frames=1)
    with uproot.recreate(tmp_path / "other.root") as file:
        file["metaData"] = "something else"
    with uproot.recreate(tmp_path / "none.root") as file:
        file["h"] = np.histogram([1.0])
    for name, expected in (("own", True), ("other", False), ("none", False)):
        with uproot.open(tmp_path / f"{name}.root") as file:
            assert simulation.made_by_simulation(file) is expected


def test_posterior_of_a_table_read_back_is_that_of_the_simulation(tmp_path):
    write_track_table(tmp_path / "t.root", 3000, 1, frames=1)
    columns = {n: v.astype(np.float32) for n, v in read(tmp_path / "t.root")["DF_1"].items()}
    tracks.normalise_missing(columns)
    probability = simulation.posterior(columns)
    pions = columns["fPdgCode"] == 211
    assert probability[pions, 0].mean() > 0.9 > 0.1 > probability[~pions, 0].mean()


def test_ao2d_files_get_more_frames_than_asked_for_rather_than_huge_ones(tmp_path, monkeypatch):
    from pidml.simulation import files

    monkeypatch.setattr(files, "_TRACKS_PER_RAW_FRAME", 100)
    (path,) = simulate_files(tmp_path, 410, files=1, fmt="ao2d", frames=3)
    with uproot.open(path) as file:
        assert sum(key.startswith("DF_") for key in file.keys(recursive=False)) == 5
