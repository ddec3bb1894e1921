import numpy as np
import pytest
import uproot

from pidml import helix
from pidml.errors import SpecError
from pidml.simulation import RawFormat, made_by_simulation, response, write_ao2d
from pidml.simulation.rejected import REASON, summary
from pidml.species import by_name

TRACKS, FRAMES = 6000, 3
RAW_TYPES = {
    "O2bc_001": {"fRunNumber": "i4", "fGlobalBC": "u8", "fTriggerMask": "u8", "fInputMask": "u8"},
    "O2collision_001": {
        "fIndexBCs": "i4", "fPosX": "f4", "fPosY": "f4", "fPosZ": "f4", "fCovXX": "f4", "fCovXY": "f4", "fCovYY": "f4",
        "fCovXZ": "f4", "fCovYZ": "f4", "fCovZZ": "f4", "fFlags": "u2", "fChi2": "f4", "fNumContrib": "u2",
        "fCollisionTime": "f4", "fCollisionTimeRes": "f4",
    },
    "O2track_iu": {
        "fIndexCollisions": "i4", "fTrackType": "u1", "fX": "f4", "fAlpha": "f4", "fY": "f4", "fZ": "f4", "fSnp": "f4",
        "fTgl": "f4", "fSigned1Pt": "f4",
    },
    "O2trackextra_002": {
        "fTPCInnerParam": "f4", "fFlags": "u4", "fITSClusterSizes": "u4", "fTPCNClsFindable": "u1",
        "fTPCNClsFindableMinusFound": "i1", "fTPCNClsFindableMinusCrossedRows": "i1", "fTPCNClsShared": "u1",
        "fTRDPattern": "u1", "fITSChi2NCl": "f4", "fTPCChi2NCl": "f4", "fTRDChi2": "f4", "fTOFChi2": "f4",
        "fTPCSignal": "f4", "fTRDSignal": "f4", "fLength": "f4", "fTOFExpMom": "f4", "fTrackEtaEMCAL": "f4",
        "fTrackPhiEMCAL": "f4", "fTrackTime": "f4", "fTrackTimeRes": "f4",
    },
    "O2mctracklabel": {"fIndexMcParticles": "i4", "fMcMask": "u2"},
    "O2mcparticle_001": {
        "fIndexMcCollisions": "i4", "fPdgCode": "i4", "fStatusCode": "i4", "fFlags": "u1", "fWeight": "f4", "fPx": "f4",
        "fPy": "f4", "fPz": "f4", "fE": "f4", "fVx": "f4", "fVy": "f4", "fVz": "f4", "fVt": "f4",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("ao2d") / "AO2D.root"
    frames = write_ao2d(path, TRACKS, 3, frames=FRAMES, first_frame=5, run=42, keep_frames=True)
    return path, frames


def read(path, frame, tree):
    with uproot.open(path) as file:
        return file[f"DF_{frame}/{tree}"].arrays(library="np")


def selected(track, extra, at_vertex, dca_xy, dca_z):
    """Return which tracks are global tracks: the selection written down independently of the simulation."""
    pt = 1 / np.abs(at_vertex.signed1pt)
    findable = extra["fTPCNClsFindable"].astype(float)
    crossed = findable - extra["fTPCNClsFindableMinusCrossedRows"]
    its = extra["fITSClusterSizes"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = crossed / findable
    return (
        (pt > 0.1) & (np.abs(np.arcsinh(at_vertex.tgl)) < 0.8) & (crossed >= 70) & (ratio >= 0.8)
        & (extra["fTPCChi2NCl"] < 4) & (extra["fITSChi2NCl"] < 36) & ((its & 0xFFF) > 0)
        & (np.abs(dca_z) < 2) & (np.abs(dca_xy) < 0.0105 + 0.035 / pt**1.1) & (track["fIndexCollisions"] >= 0)
    )  # fmt: skip


def propagated(path, frame):
    """Return the tracks of a frame at their collision's vertex, read from the file."""
    track, collision = read(path, frame, "O2track_iu"), read(path, frame, "O2collision_001")
    params = helix.as_parameters(*(track[f"f{name}"] for name in ("X", "Alpha", "Y", "Z", "Snp", "Tgl", "Signed1Pt")))
    vertex = np.column_stack([collision[f"fPos{axis}"] for axis in "XYZ"]).astype(float)[track["fIndexCollisions"]]
    return track, *helix.propagate_to_vertex(params, vertex, response.FIELD)


def test_tables_have_the_documented_columns_and_types(made):
    path, _ = made
    with uproot.open(path) as file:
        assert list(file.keys(recursive=False, cycle=False)) == ["metaData", "DF_5", "DF_6", "DF_7"]
        for tree, columns in RAW_TYPES.items():
            table = file[f"DF_6/{tree}"]
            found = {name: branch.interpretation for name, branch in table.items()}
            for name, dtype in columns.items():
                assert found[name].numpy_dtype.newbyteorder("=") == np.dtype(dtype), (tree, name)
        particles = file["DF_6/O2mcparticle_001"]
        assert particles["fIndexSlice_Daughters"].array(library="np").shape[1:] == (2,)
        mothers = particles["fIndexArray_Mothers"].array()
        primary = particles["fFlags"].array(library="np") & 4 > 0
        assert [len(m) for m in mothers[primary][:20]] == [0] * 20
        assert max(len(m) for m in mothers[~primary]) == 1
        assert made_by_simulation(file)


def test_joinable_tables_have_as_many_rows_and_indices_point_into_their_tables(made):
    path, _ = made
    for frame in (5, 6, 7):
        tables = {tree: read(path, frame, tree) for tree in RAW_TYPES}
        rows = {tree: len(next(iter(columns.values()))) for tree, columns in tables.items()}
        assert rows["O2track_iu"] == rows["O2trackextra_002"] == rows["O2mctracklabel"] > TRACKS / FRAMES
        for tree, index, target in (
            ("O2track_iu", "fIndexCollisions", "O2collision_001"),
            ("O2collision_001", "fIndexBCs", "O2bc_001"),
            ("O2mctracklabel", "fIndexMcParticles", "O2mcparticle_001"),
        ):
            values = tables[tree][index]
            assert values.min() >= -1
            assert values.max() < rows[target]
        assert np.all(tables["O2bc_001"]["fRunNumber"] == 42)
        assert np.all(np.diff(tables["O2bc_001"]["fGlobalBC"].astype(np.int64)) > 0)


def test_propagation_gives_back_momentum_point_and_distances(made):
    path, frames = made
    for number, frame in enumerate(frames, 5):
        _, there, dca_xy, dca_z = propagated(path, number)
        rows = np.flatnonzero(frame.reasons == 0)
        expected = frame.expected
        for name, values in zip(("fPx", "fPy", "fPz"), helix.momentum(there), strict=True):
            np.testing.assert_allclose(values[rows], expected[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(dca_xy[rows], expected["fDcaXY"], atol=5e-6)
        np.testing.assert_allclose(dca_z[rows], expected["fDcaZ"], atol=1e-5)
        assert np.max(np.abs(helix.wrap_angle(there.alpha[rows] - expected["fAlpha"]))) < 1e-6
        for name, values in (("fX", there.x), ("fY", there.y), ("fZ", there.z)):
            np.testing.assert_allclose(values[rows], expected[name], atol=1e-5)


def test_selection_keeps_exactly_the_tracks_asked_for(made):
    path, frames = made
    total = 0
    for number, frame in enumerate(frames, 5):
        track, there, dca_xy, dca_z = propagated(path, number)
        kept = selected(track, read(path, number, "O2trackextra_002"), there, dca_xy, dca_z)
        has_particle = read(path, number, "O2mctracklabel")["fIndexMcParticles"] >= 0
        np.testing.assert_array_equal(kept & has_particle, frame.reasons == 0)
        np.testing.assert_array_equal(kept & ~has_particle, frame.reasons == REASON["no_particle"])
        total += int((kept & has_particle).sum())
        assert all(count > 0 for count in summary(frame.reasons).values())
    assert total == TRACKS


def test_time_of_flight_and_beta_follow_from_the_tables(made):
    path, frames = made
    masses = np.array([by_name(name).mass for name in ("electron", "muon", "pion", "kaon", "proton")])
    for number, frame in enumerate(frames, 5):
        extra, track = read(path, number, "O2trackextra_002"), read(path, number, "O2track_iu")
        event_time = 1000.0 * read(path, number, "O2collision_001")["fCollisionTime"][track["fIndexCollisions"]]
        rows = np.flatnonzero(frame.reasons == 0)
        length, p = extra["fLength"][rows].astype(float), extra["fTOFExpMom"][rows].astype(float)
        has_tof = (extra["fTOFChi2"][rows] >= 0) & (p > 0)
        np.testing.assert_array_equal(has_tof, ~np.isnan(frame.expected["fBeta"]))
        length, p = length[has_tof], p[has_tof]
        mass = masses[extra["fFlags"][rows][has_tof] >> 28]
        assert len(np.unique(mass)) > 2
        time = 1000.0 * extra["fTrackTime"][rows][has_tof] + length * np.sqrt(p**2 + mass**2) / (0.0299792458 * p)
        np.testing.assert_allclose(time, frame.expected["fTOFSignal"][has_tof], atol=1e-2)
        beta = length / ((time - event_time[rows][has_tof]) * 0.0299792458)
        np.testing.assert_allclose(beta, frame.expected["fBeta"][has_tof], rtol=1e-6)


def test_labels_lead_to_the_right_particles(made):
    path, frames = made
    for number, frame in enumerate(frames, 5):
        particles, labels = read(path, number, "O2mcparticle_001"), read(path, number, "O2mctracklabel")
        rows = labels["fIndexMcParticles"][frame.reasons == 0]
        expected = frame.expected
        np.testing.assert_array_equal(particles["fPdgCode"][rows], expected["fPdgCode"])
        np.testing.assert_array_equal((particles["fFlags"][rows] & 4) > 0, expected["fIsPhysicalPrimary"] == 1)
        ratio = particles["fPx"][rows] / expected["fPx"]
        assert 0.005 < np.std(ratio) < 0.02
        assert np.mean(ratio) == pytest.approx(1, abs=2e-3)
        assert len(particles["fPdgCode"]) > len(np.unique(rows)) == len(rows)


def test_equal_seeds_give_equal_tables(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_ao2d(tmp_path / name, 200, seed, frames=1)
    for tree in RAW_TYPES:
        first, again = (read(tmp_path / name, 1, tree) for name in "ab")
        for column in RAW_TYPES[tree]:
            np.testing.assert_array_equal(first[column], again[column])
    assert not np.array_equal(
        read(tmp_path / "a", 1, "O2track_iu")["fX"][:100], read(tmp_path / "c", 1, "O2track_iu")["fX"][:100]
    )


@pytest.mark.parametrize("extra", ["O2trackextra", "O2trackextra_001"])
def test_older_versions_of_the_tables(tmp_path, extra):
    path = tmp_path / "AO2D.root"
    form = RawFormat(tracks="O2track", extra=extra, mc_collision="O2mccollision")
    (frame,) = write_ao2d(path, 500, 1, frames=1, form=form, keep_frames=True)
    track, table = read(path, 1, "O2track"), read(path, 1, extra)
    assert ("fITSClusterMap" in table) == (extra == "O2trackextra")
    assert ("fITSClusterSizes" in table) == (extra != "O2trackextra")
    rows = frame.reasons == 0
    np.testing.assert_allclose(track["fY"][rows], frame.expected["fY"], atol=1e-6)
    assert np.all(track["fSnp"] == 0)
    assert "fEventPlaneAngle" not in read(path, 1, "O2mccollision")


def test_without_simulated_truth(tmp_path):
    path = tmp_path / "AO2D.root"
    write_ao2d(path, 300, 1, frames=1, form=RawFormat(simulation=False))
    with uproot.open(path) as file:
        trees = set(file["DF_1"].keys(cycle=False))
    assert trees == {"O2bc_001", "O2collision_001", "O2track_iu", "O2trackextra_002"}


def test_unknown_versions_are_refused():
    with pytest.raises(SpecError, match="O2track_003"):
        RawFormat(tracks="O2track_003")
