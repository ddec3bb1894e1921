import numpy as np
import pytest
from scipy import integrate, stats

from pidml import helix
from pidml.simulation import mixture, response
from pidml.species import ALL

MOMENTA = np.array([0.15, 0.3, 0.5, 0.8, 1.5, 4.0])


def integral(log_density, points):
    return integrate.simpson(np.exp(log_density), x=points, axis=0)


def test_bethe_bloch_has_its_minimum_at_fifty_near_beta_gamma_three_and_a_half():
    beta_gamma = np.geomspace(0.3, 1e4, 20_000)
    signal = response.MIP * response.bethe_bloch(beta_gamma)
    assert 45 < signal.min() < 55
    assert 3 < beta_gamma[signal.argmin()] < 4
    assert 1.3 < signal[-1] / signal.min() < 2.0  # relativistic rise to the Fermi plateau


@pytest.mark.parametrize("p", MOMENTA)
def test_tpc_density_of_every_species_integrates_to_one(p):
    expected = response.tpc_expected(np.array([p]), mixture.MASS)
    signal = np.linspace(0.2, 1.8, 4001)[:, None] * expected
    for species in range(len(ALL)):
        density = response.log_tpc(signal[:, species], expected[species])
        assert integral(density, signal[:, species]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("p", MOMENTA[MOMENTA >= 0.3])
def test_beta_and_flight_time_densities_integrate_to_one(p):
    pt = np.array([p])
    length = response.path_length(pt, pt, response.TOF_RADIUS)
    earliest = length / response.LIGHT
    time = np.concatenate([np.linspace(-4000, 4000, 8001), np.linspace(4000, 120_000, 60_001)[1:]]) + earliest
    for mass in np.unique(mixture.MASS):
        for spread in (0.0, response.EVENT_TIME_SPREAD):
            density = np.exp(response.log_flight_time(time, length, pt, pt, mass, spread))
            assert integrate.trapezoid(density, time) == pytest.approx(1, abs=1e-4)
        beta = (length / (time * response.LIGHT))[::-1]
        density = np.exp(response.log_beta(beta, length, pt, pt, mass))
        assert integrate.trapezoid(density, beta) == pytest.approx(1, abs=1e-4)


def test_mismatch_density_is_the_one_of_gaussian_plus_exponential():
    time = np.linspace(-2000, 20_000, 400)
    reference = stats.exponnorm.logpdf(
        time, response.MISMATCH_DELAY / response.MISMATCH_WIDTH, loc=0, scale=response.MISMATCH_WIDTH
    )
    np.testing.assert_allclose(response._log_mismatch(time, np.zeros(1), response.MISMATCH_WIDTH), reference, rtol=1e-8)


def test_trd_density_integrates_to_one():
    signal = np.geomspace(1, 1000, 6001)
    for mass in np.unique(mixture.MASS):
        assert integral(response.log_trd(signal, np.array(2.0), mass), signal) == pytest.approx(1, abs=1e-6)


def test_electrons_radiate_in_the_trd_and_pions_do_not():
    p = np.array([2.0])
    electron, pion = (float(np.exp(response.trd_expected_log(p, mass))[0]) for mass in (0.000511, 0.1396))
    assert electron > 1.5 * pion


def test_momentum_spectra_integrate_to_one_and_are_those_that_are_drawn():
    edges = np.geomspace(mixture.PT_MIN, mixture.PT_MAX, 41)
    fine = np.geomspace(mixture.PT_MIN, mixture.PT_MAX, 40 * 200 + 1)
    density = np.exp(mixture.log_spectrum(fine))
    cumulative = integrate.cumulative_trapezoid(density, fine, axis=0, initial=0)[::200]
    np.testing.assert_allclose(cumulative[-1], 1, rtol=1e-5)
    # Evenly spaced "random" numbers: counts then agree with the density to a few tracks, not only within √n.
    uniform = (np.arange(200_000) + 0.5) / 200_000
    for species in range(len(ALL)):
        drawn = mixture.draw_pt(uniform, np.full(len(uniform), species))
        counts = np.histogram(drawn, edges)[0]
        np.testing.assert_allclose(counts, np.diff(cumulative[:, species]) * len(uniform), atol=3)


@pytest.mark.parametrize("smearing", [0.0, 0.012, 5.2])
@pytest.mark.parametrize("width", [0.005, 0.09, 0.45])
def test_truncated_gaussian_integrates_to_one(width, smearing):
    cut = 0.1
    reach = cut + 8 * smearing
    value = np.linspace(-reach, reach, 20_001)
    assert integral(response.log_truncated_gaussian(value, width, cut, smearing), value) == pytest.approx(1, abs=1e-5)


def test_smeared_truncated_gaussian_is_finite_far_outside():
    value = np.array([-400.0, 400.0])
    assert np.all(np.isfinite(response.log_truncated_gaussian(value, 0.09, 0.1, 5.2)))


def test_presence_is_a_probability_and_kaons_are_lost_by_decay():
    pt = np.geomspace(0.1, 20, 300)[:, None]
    parts = (mixture.SIGN, response.DECAY_RATE, response.ABSORPTION, response.ABSORPTION_SLOW)
    trd, tof, tof_alone = response.presence(pt, 1.2 * pt, np.zeros((1, 1)), *parts)
    for chance in (trd, tof, tof_alone):
        assert np.all((chance >= 0) & (chance <= 1))
    assert np.all(tof[pt[:, 0] < 0.283] == 0)  # a helix of 0.5 T does not reach 3.78 m below 0.283 GeV/c
    pion, kaon = 0, 1
    at = int(np.searchsorted(pt[:, 0], 0.6))
    assert trd[at, kaon] * tof[at, kaon] < 0.9 * trd[at, pion] * tof[at, pion]
    assert trd[-1, kaon] == pytest.approx(trd[-1, pion], rel=0.02)


def test_path_length_is_that_of_the_helix():
    pt, tgl = np.array([0.4, 1.0, 5.0]), np.array([0.3, -0.7, 0.0])
    start = helix.from_momentum(pt, np.zeros(3), pt * tgl, np.zeros(3), np.array([1.0, -1.0, 1.0]))
    end = helix.propagate_to_radius(start, response.TOF_RADIUS, response.FIELD)
    turn = np.abs(helix.wrap_angle(end.alpha - start.alpha))
    length = turn / np.abs(helix.curvature(start.signed1pt, response.FIELD)) * np.hypot(1, tgl)
    np.testing.assert_allclose(response.path_length(pt, pt * np.hypot(1, tgl), response.TOF_RADIUS), length, rtol=1e-9)
