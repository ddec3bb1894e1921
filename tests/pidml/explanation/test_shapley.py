"""Shapley values: those of known functions, of the definition, and what they say of their own error."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from support.explained import NAMES, TPC, identifies, reads_all, reads_tpc_only, sample_of

from pidml.explanation.sample import Sample
from pidml.explanation.shapley import shapley_values


def shapley(predict, sample, chunk=400, background=8, seed=3):
    values, outputs = np.zeros((len(sample), 6, len(sample.names)), np.float32), predict(sample.features)
    found = shapley_values(predict, sample, outputs, values, background=background, chunk=chunk, seed=seed)
    assert found.explained.all()
    return values, found.base


def test_shapley_values_of_a_classifier_that_reads_one_feature(sample):
    values, base = shapley(reads_tpc_only, sample)
    others = np.delete(values, TPC, axis=2)
    assert np.nanmax(np.abs(others)) == 0
    np.testing.assert_allclose(values[:, :, TPC], reads_tpc_only(sample.features) - base, atol=1e-6)
    assert np.abs(values[:, :, TPC]).max() > 0.1


def test_shapley_values_add_up_to_the_output_whatever_is_missing(sample):
    predict = reads_all(sample)
    values, base = shapley(predict, sample)
    np.testing.assert_array_equal(np.isnan(values[:, 0]), np.isnan(sample.features))
    np.testing.assert_allclose(np.nansum(values, axis=2), predict(sample.features) - base, atol=2e-6)


def test_shapley_values_of_a_sum_are_known(sample):
    weights = np.linspace(-1, 1, 16) / np.nanstd(sample.features, axis=0).clip(1e-3)

    def predict(features):
        total = np.nansum(features * weights, axis=1)
        return np.repeat(total[:, None], 6, axis=1).astype(np.float32)

    values, base = shapley(predict, sample, chunk=128)
    for group in sample.alike:  # each value is the weighted distance from the mean of tracks like it
        there = sample.there(group)
        own = sample.features[group][:, there] * weights[there]
        expected = own - (own.sum(axis=0) - own) / (len(group) - 1)
        spread = own.std(axis=0) / np.sqrt(8)  # if the background were drawn at random
        difference = values[group, 0][:, there] - expected
        # Single features have outliers, which few tracks' backgrounds hold: all features together are precise.
        varying = spread > 1e-6
        assert np.mean((difference[:, varying] / spread[varying]) ** 2) < 1
        assert (np.abs(difference.mean(axis=0)) < 5 * spread / np.sqrt(len(group)) + 1e-6).all()
    np.testing.assert_allclose(np.nansum(values[:, 0], axis=1), predict(sample.features)[:, 0] - base[:, 0], atol=1e-4)


def test_features_of_which_both_are_needed_share_alike():
    features = np.ones((64, 16), np.float32)
    features[::2, :2] = 0
    sample = sample_of(features)

    def predict(given):
        return np.repeat(given[:, [0]] * given[:, [1]], 6, axis=1)

    values, base = shapley(predict, sample, background=60)
    assert base[0, 0] == pytest.approx(0.5, abs=0.02)
    share = (1 - base[1::2, 0]) / 2  # exactly: the reverse of an order gives the other feature the same
    np.testing.assert_allclose(values[1::2, 0, :2], np.repeat(share[:, None], 2, axis=1), atol=0.05)
    assert np.abs(values[:, 0, 2:]).max() == 0


def exact_shapley(predict, features, row, width):
    """The definition, over all subsets of the first features and all other tracks: (outputs, width)."""
    others = np.delete(np.arange(len(features)), row)

    def mean(subset):
        mixed = features[others].copy()
        mixed[:, subset] = features[row, subset]
        return predict(mixed).mean(axis=0, dtype=np.float64)

    found = np.zeros((6, width))
    for feature in range(width):
        rest = [each for each in range(width) if each != feature]
        for size in range(width):
            weight = math.factorial(size) * math.factorial(width - size - 1) / math.factorial(width)
            for subset in itertools.combinations(rest, size):
                found[:, feature] += weight * (mean([*subset, feature]) - mean(list(subset)))
    return found


def test_shapley_values_agree_with_the_definition_within_the_error_that_they_state():
    rng = np.random.default_rng(8)
    features = np.zeros((90, 16), np.float32)
    features[:, :5] = rng.normal(size=(90, 5))
    weights = rng.normal(size=(5, 6))

    def predict(given):
        x = given[:, :5]
        return np.tanh(x @ weights + 2 * x[:, [0]] * x[:, [1]] * np.sign(x[:, [2]])).astype(np.float32)

    sample = sample_of(features)
    exact = np.stack([exact_shapley(predict, features, row, 5) for row in range(90)])
    values, outputs = np.zeros((90, 6, 16), np.float32), predict(features)
    for background, largest in ((12, 0.2), (64, 0.08)):
        estimate = shapley_values(predict, sample, outputs, values, background=background, chunk=40, seed=2)
        differences = values[:, :, :5] - exact
        true = np.sqrt(np.mean(differences**2))
        assert true < largest
        # The features that the function does not read have no error; the stated one is the mean with them.
        stated = np.sqrt(np.mean(estimate.error**2) * 16 / 5)
        assert 0.6 < stated / true < 1.7
        assert np.abs(differences.mean(axis=0)).max() < 4 * true / np.sqrt(90)  # no bias


def test_fewer_evaluations_are_better_than_more_at_random(prepared):
    """On tracks, 12 orders in pairs with an evenly spread background beat the textbook's 32."""
    everything = Sample.draw(prepared.split("test"), NAMES, 1500, seed=1)
    rows = max(everything.alike, key=len)[:400]
    sample = Sample.of(everything.rows[rows], prepared.split("test"), NAMES)
    there = sample.there(np.arange(1))
    reference, outputs = np.zeros((400, 6, 16), np.float32), identifies(sample.features)
    shapley_values(identifies, sample, outputs, reference, background=396, chunk=100, seed=1)
    ours, _ = shapley(identifies, sample, background=12)
    rng, textbook = np.random.default_rng(5), np.zeros_like(reference)
    for other in rng.integers(0, 400, 32):
        state = np.repeat(sample.features[[other]], 400, axis=0)
        for column in rng.permutation(there):
            before = identifies(state)
            state[:, column] = sample.features[:, column]
            textbook[:, :, column] += (identifies(state) - before) / 32
    error, plain = (np.sqrt(np.nanmean((each - reference) ** 2)) for each in (ours, textbook))
    assert error < plain


def test_a_track_that_too_few_others_are_like_has_no_values_instead_of_zeros():
    features = np.random.default_rng(3).normal(size=(60, 16)).astype(np.float32)
    features[:8, TPC] = np.nan  # no more than eight
    features[8, 3] = np.nan  # one alone
    features[9:18, 4] = np.nan  # nine: each has eight others
    sample = sample_of(features)
    predict = reads_all(sample)
    values, outputs = np.zeros((60, 6, 16), np.float32), predict(features)
    estimate = shapley_values(predict, sample, outputs, values, background=8, chunk=7, seed=1)
    np.testing.assert_array_equal(np.isnan(values).all(axis=(1, 2)), np.arange(60) < 9)
    np.testing.assert_array_equal(~estimate.explained, np.arange(60) < 9)
    assert (np.abs(values[9:]).sum(axis=(1, 2), where=~np.isnan(values[9:])) > 0).all()
    assert np.isfinite(estimate.error).all()


def test_shapley_values_are_the_same_for_a_seed_and_leave_the_global_one_alone(sample):
    import torch

    torch.manual_seed(77)
    first, _ = shapley(reads_all(sample), sample)
    drawn = torch.rand(1)
    second, _ = shapley(reads_all(sample), sample)
    np.testing.assert_array_equal(first, second)
    torch.manual_seed(77)
    assert torch.equal(torch.rand(1), drawn)


def test_all_that_lies_between_background_and_track_is_evaluated_at_once(sample):
    """Trees are several times faster for thousands of tracks than for hundreds."""
    calls = []

    def predict(features):
        calls.append(len(features))
        return reads_all(sample)(features)

    shapley(predict, sample, chunk=1500)
    calls = calls[1:]  # the first is for the tracks as they are
    assert len(calls) == 8 * len(sample.alike)
    assert sum(calls) < 8 * 15 * len(sample)
    assert max(calls) > 10 * len(max(sample.alike, key=len))
