import numpy as np
import pytest

from pidml import tracks
from pidml.simulation import generate_tracks, mixture, response
from pidml.simulation.distortion import Distortion
from pidml.species import ALL


@pytest.fixture(scope="module")
def simulated():
    return generate_tracks(300_000, seed=5)


def test_same_seed_same_tracks_other_seed_other_tracks():
    first, again, other = (generate_tracks(1000, seed).columns for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["fPt"], other["fPt"])


def test_a_distorted_response_is_as_asked_for(simulated):
    distorted = generate_tracks(300_000, 5, Distortion(tpc_gain=1.1, tpc_smearing=0.05, tof_shift=50, tof_smearing=30))
    before, after = simulated.columns, distorted.columns
    for name in ("fPt", "fPdgCode", "fTRDSignal", "fDcaXY"):
        np.testing.assert_array_equal(before[name], after[name])
    factor = after["fTPCSignal"] / before["fTPCSignal"]
    assert np.mean(factor) == pytest.approx(1.1, abs=0.001)
    assert np.std(factor) == pytest.approx(1.1 * 0.05, rel=0.02)
    there = ~np.isnan(before["fBeta"])
    np.testing.assert_array_equal(there, ~np.isnan(after["fBeta"]))
    late = (distorted.truth["tof"] - simulated.truth["tof"])[there]
    assert (np.mean(late), np.std(late)) == (pytest.approx(50, abs=0.5), pytest.approx(30, rel=0.02))
    length = simulated.truth["length"][there]
    flight = [length / (response.LIGHT * tracks.truth["beta"][there]) for tracks in (simulated, distorted)]
    np.testing.assert_allclose(flight[1] - flight[0], late, atol=1e-6)


def test_species_fractions_are_the_published_ones(simulated):
    kinds = np.abs(simulated.columns["fPdgCode"])
    published = {211: 2400, 321: 184, 2212: 106, 11: 43, 13: 18}
    for pdg, count in published.items():
        fraction = count / sum(published.values())
        assert np.mean(kinds == pdg) == pytest.approx(fraction, abs=4 * np.sqrt(fraction / len(kinds)))


def test_missing_patterns_are_the_published_ones(simulated):
    pattern = tracks.missing_pattern({name: simulated.columns[name] for name in ("fTRDPattern", "fBeta")})
    published = {"complete": 0.371, "no-trd-no-tof": 0.367, "no-tof": 0.248, "no-trd": 0.014}
    for number, name in tracks.PATTERN_NAMES.items():
        assert np.mean(pattern == number) == pytest.approx(published[name], abs=min(0.012, 0.5 * published[name]))


def test_every_track_passes_the_selection(simulated):
    c = simulated.columns
    eta = np.arcsinh(c["fPz"] / c["fPt"])
    assert np.all((c["fPt"] >= 0.1) & (np.abs(eta) < 0.80001) & (np.abs(c["fDcaZ"]) <= 2))
    assert np.all(np.abs(c["fDcaXY"]) <= response.dca_xy_cut(c["fPt"]) * 1.00001)


def test_columns_are_those_of_the_training_table_and_consistent(simulated):
    c = simulated.columns
    assert set(c) == {column.name for column in tracks.TRAINING_COLUMNS}
    types = {name: values.dtype for name, values in c.items() if values.dtype != np.float32}
    assert types == {"fPdgCode": np.int32, "fIsPhysicalPrimary": np.uint8}
    np.testing.assert_allclose(np.hypot(c["fPx"], c["fPy"]), c["fPt"], rtol=1e-5)
    np.testing.assert_allclose(np.hypot(c["fPt"], c["fPz"]), c["fP"], rtol=1e-5)
    np.testing.assert_allclose(np.arctan2(c["fPy"], c["fPx"]), c["fAlpha"], atol=1e-5)
    for a, b in (("fTOFSignal", "fBeta"), ("fTRDSignal", "fTRDPattern")):
        np.testing.assert_array_equal(np.isnan(c[a]), np.isnan(c[b]))
    pattern = c["fTRDPattern"][~np.isnan(c["fTRDPattern"])]
    assert pattern.min() >= 1
    assert pattern.max() <= 63
    sign = {species.pdg: species.sign for species in ALL}
    np.testing.assert_array_equal(c["fSign"], np.vectorize(sign.get)(c["fPdgCode"]))


def test_reference_point_follows_from_vertex_and_distances(simulated):
    c, vertex = simulated.columns, simulated.vertex[simulated.truth["collision"]]
    cos, sin = np.cos(c["fAlpha"]), np.sin(c["fAlpha"])
    np.testing.assert_allclose(c["fX"], vertex[:, 0] * cos + vertex[:, 1] * sin, atol=1e-6)
    np.testing.assert_allclose(c["fY"] - c["fDcaXY"], vertex[:, 1] * cos - vertex[:, 0] * sin, atol=1e-6)
    np.testing.assert_allclose(c["fZ"] - c["fDcaZ"], vertex[:, 2], atol=1e-5)


def test_collisions_share_vertex_and_event_time(simulated):
    collision = simulated.truth["collision"]
    assert np.all(np.diff(collision) >= 0)
    assert collision[-1] == len(simulated.vertex) - 1 == len(simulated.event_time) - 1
    t = simulated.truth
    time = t["length"] / (t["beta"] * response.LIGHT)
    with_tof = ~np.isnan(time)
    np.testing.assert_allclose((t["tof"] - time)[with_tof], simulated.event_time[collision][with_tof], atol=1e-6)


def test_distribution_of_times_and_signals_has_the_stated_width(simulated):
    t, c = simulated.truth, simulated.columns
    good = ~np.isnan(t["beta"]) & ~t["mismatch"]
    late = t["length"] / (t["beta"] * response.LIGHT) - response.flight_time(t["length"], t["p"], t["mass"])
    pull = (late / response.tof_resolution(t["p"]))[good]
    assert pull.mean() == pytest.approx(0, abs=5 / np.sqrt(len(pull)))
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * len(pull)))
    pull = c["fTPCSignal"] / response.tpc_expected(t["p"], t["mass"]) - 1
    pull /= response.tpc_relative_resolution(t["clusters"])
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * len(pull)))


def test_secondary_fractions_follow_the_mixture(simulated):
    t = simulated.truth
    chance = mixture.secondary_fraction_of(t["pt"], t["species"])
    for species in range(len(ALL)):
        mine = t["species"] == species
        expected, error = chance[mine].sum(), np.sqrt((chance * (1 - chance))[mine].sum())
        assert abs((~t["primary"][mine]).sum() - expected) < 4.5 * error
