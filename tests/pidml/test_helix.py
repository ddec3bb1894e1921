import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pidml import helix

FIELD = 0.5


def one(x=0.0, alpha=0.0, y=0.0, z=0.0, snp=0.0, tgl=0.0, signed1pt=1.0):
    return helix.as_parameters([x], [alpha], [y], [z], [snp], [tgl], [signed1pt])


def random_tracks(n=2000, seed=3):
    rng = np.random.default_rng(seed)
    pt = rng.uniform(0.1, 5, n)
    phi = rng.uniform(-np.pi, np.pi, n)
    charge = rng.choice([-1.0, 1.0], n)
    position = rng.normal(0, [0.1, 0.1, 5], (n, 3))
    return helix.from_momentum(pt * np.cos(phi), pt * np.sin(phi), pt * rng.uniform(-0.9, 0.9, n), position, charge)


def assert_same_state(a, b, tolerance=1e-9):
    np.testing.assert_allclose(helix.global_position(a), helix.global_position(b), rtol=0, atol=tolerance)
    np.testing.assert_allclose(helix.momentum(a), helix.momentum(b), rtol=0, atol=tolerance)


def test_radius_of_one_gev_in_half_a_tesla_is_6_67_metres_and_positive_charges_turn_clockwise():
    kappa = helix.curvature(np.array([1.0, -1.0]), FIELD)
    np.testing.assert_allclose(1 / kappa, [-667.1281904, 667.1281904], rtol=1e-9)
    # Force on a positive charge: v × B with v along +x and B along +z points to −y.
    after = helix.propagate_by_arc(one(signed1pt=1.0), 100.0, FIELD)
    assert helix.global_position(after)[1][0] < 0
    assert helix.momentum(after)[1][0] < 0


def test_full_circle_returns_to_its_start_but_for_z():
    start = one(x=1.0, y=-2.0, z=3.0, snp=0.3, alpha=0.7, tgl=0.5, signed1pt=-10.0)
    circumference = 2 * np.pi / abs(helix.curvature(start.signed1pt, FIELD)[0])
    end = helix.propagate_by_arc(start, circumference, FIELD)
    np.testing.assert_allclose(helix.global_position(end)[:2], helix.global_position(start)[:2], atol=1e-9)
    np.testing.assert_allclose(end.z - start.z, 0.5 * circumference)


@pytest.mark.parametrize("bz", [0.5, -0.5, 0.2, 1e-9, 0.0])
def test_arc_forth_and_back_is_the_identity(bz):
    tracks = random_tracks()
    there = helix.propagate_by_arc(tracks, 40.0, bz)
    assert_same_state(helix.propagate_by_arc(there, -40.0, bz), tracks)


def test_propagation_to_x_agrees_with_the_numerical_solution_of_the_equation_of_motion():
    tracks = random_tracks(200)
    end = helix.propagate_to_x(tracks, tracks.x + 5.0, FIELD)
    x, y, z = (np.array(value) for value in (tracks.x, tracks.y, tracks.z))
    kappa, steps = helix.curvature(tracks.signed1pt, FIELD), 4000
    for step in range(steps):
        sine = tracks.snp + kappa * 5.0 * (step + 0.5) / steps
        cosine = np.sqrt(1 - sine**2)
        y += 5.0 / steps * sine / cosine
        z += 5.0 / steps * tracks.tgl / cosine
    np.testing.assert_allclose(end.y, y, atol=1e-6)
    np.testing.assert_allclose(end.z, z, atol=1e-6)
    np.testing.assert_allclose(end.x, x + 5.0)


def test_a_helix_that_does_not_reach_x_or_radius_gives_nan():
    slow = one(signed1pt=10.0)  # radius of curvature 66.7 cm
    assert np.isnan(helix.propagate_to_x(slow, 70.0, FIELD).y[0])
    assert np.isfinite(helix.propagate_to_x(slow, 60.0, FIELD).y[0])
    assert np.isnan(helix.propagate_to_radius(slow, 140.0, FIELD).x[0])
    assert np.isfinite(helix.propagate_to_radius(slow, 130.0, FIELD).x[0])


def test_radius_is_reached_outwards_by_every_track():
    end = helix.propagate_to_radius(random_tracks(), 4.0, FIELD)
    x, y, _ = helix.global_position(end)
    px, py, _ = helix.momentum(end)
    np.testing.assert_allclose(np.hypot(x, y), 4.0, rtol=1e-12)
    assert np.all(x * px + y * py > 0)


def test_rotation_keeps_the_track_and_refuses_backward_frames():
    tracks = random_tracks()
    turned = helix.rotate(tracks, tracks.alpha + 0.8)
    assert_same_state(turned, tracks)
    np.testing.assert_allclose(turned.snp, -np.sin(0.8))
    assert np.all(np.isnan(helix.rotate(tracks, tracks.alpha + 2.0).x))


def test_closest_approach_is_the_closest_point_of_the_helix():
    tracks = helix.propagate_to_radius(random_tracks(300), 3.0, FIELD)
    vertex = np.random.default_rng(1).normal(0, [0.05, 0.05, 6], (300, 3))
    there, dca_xy, dca_z = helix.propagate_to_vertex(tracks, vertex, FIELD)
    x, y, z = helix.global_position(there)
    np.testing.assert_allclose(np.hypot(x - vertex[:, 0], y - vertex[:, 1]), np.abs(dca_xy), atol=1e-11)
    np.testing.assert_allclose(z - vertex[:, 2], dca_z, atol=1e-11)
    for arc in (-0.02, 0.02):
        nx, ny, _ = helix.global_position(helix.propagate_by_arc(there, arc, FIELD))
        assert np.all(np.hypot(nx - vertex[:, 0], ny - vertex[:, 1]) > np.abs(dca_xy))
    np.testing.assert_allclose(
        there.y + vertex[:, 0] * np.sin(there.alpha) - vertex[:, 1] * np.cos(there.alpha), dca_xy, atol=1e-11
    )
    assert np.all(there.snp == 0)


def test_sign_of_the_dca_is_positive_left_of_the_vertex():
    _, dca, _ = helix.propagate_to_vertex(one(x=2.0, y=0.1, signed1pt=1e-6), np.zeros(3), FIELD)
    np.testing.assert_allclose(dca, 0.1, atol=1e-6)


@pytest.mark.parametrize("bz", [0.5, -0.5, 0.0])
def test_outwards_into_a_sector_frame_and_back_to_the_vertex(bz):
    tracks = random_tracks()
    vertex = np.column_stack(helix.global_position(tracks))
    outside = helix.propagate_to_radius(tracks, 3.0, bz)
    sector = np.round(np.arctan2(*helix.global_position(outside)[1::-1]) / (np.pi / 9)) * np.pi / 9
    back, dca_xy, dca_z = helix.propagate_to_vertex(helix.rotate(outside, sector), vertex, bz)
    np.testing.assert_allclose(dca_xy, 0, atol=1e-11)
    np.testing.assert_allclose(dca_z, 0, atol=1e-11)
    assert_same_state(back, tracks, 1e-10)


@settings(max_examples=200, deadline=None)
@given(
    pt=st.floats(0.1, 20),
    phi=st.floats(-3.14, 3.14),
    tgl=st.floats(-1.2, 1.2),
    charge=st.sampled_from([-1.0, 1.0]),
    distance=st.floats(-3, 3),
    radius=st.floats(3.5, 8),
    bz=st.floats(-0.5, 0.5),
)
def test_displaced_track_comes_back_with_its_dca(pt, phi, tgl, charge, distance, radius, bz):
    sine, cosine = np.sin(phi), np.cos(phi)
    position = np.array([[-distance * sine, distance * cosine, 1.0]])
    start = helix.from_momentum(
        *(np.array([v]) for v in (pt * cosine, pt * sine, pt * tgl)), position, np.array([charge])
    )
    outside = helix.propagate_to_radius(start, radius, bz)
    back, dca_xy, dca_z = helix.propagate_to_vertex(outside, np.array([0.0, 0.0, 1.0]), bz)
    assert dca_xy[0] == pytest.approx(distance, abs=1e-10)
    assert dca_z[0] == pytest.approx(0, abs=1e-9)
    assert_same_state(back, start)


def test_closest_approach_is_that_of_the_formula_in_o2():
    tracks = helix.propagate_to_radius(random_tracks(500, seed=8), 3.0, FIELD)
    sector = np.round(tracks.alpha / 0.35) * 0.35
    tracks = helix.rotate(tracks, sector)
    vertex = np.random.default_rng(2).normal(0, [0.05, 0.05, 6], (500, 3))
    there, dca_xy, dca_z = helix.propagate_to_vertex(tracks, vertex, FIELD)
    # O2: the frame is turned until the momentum at the closest approach lies along x, then the track moves to x_vertex.
    cos, sin = np.cos(tracks.alpha), np.sin(tracks.alpha)
    xv, yv = vertex[:, 0] * cos + vertex[:, 1] * sin, vertex[:, 1] * cos - vertex[:, 0] * sin
    kappa = helix.curvature(tracks.signed1pt, FIELD)
    tangent = -(kappa * (tracks.x - xv) - tracks.snp) / (kappa * (tracks.y - yv) + np.sqrt(1 - tracks.snp**2))
    turn = np.arctan(tangent)
    moved = helix.rotate(tracks, tracks.alpha + turn)
    moved = helix.propagate_to_x(moved, xv * np.cos(turn) + yv * np.sin(turn), FIELD)
    np.testing.assert_allclose(moved.y - (yv * np.cos(turn) - xv * np.sin(turn)), dca_xy, atol=1e-10)
    np.testing.assert_allclose(moved.z - vertex[:, 2], dca_z, atol=1e-10)
    np.testing.assert_allclose(helix.wrap_angle(moved.alpha - there.alpha), 0, atol=1e-10)
    np.testing.assert_allclose(moved.snp, 0, atol=1e-10)
