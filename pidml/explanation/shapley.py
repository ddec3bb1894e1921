"""Shapley values: how each feature of a track moves its certainties away from those of comparable tracks.

Features are put in one by one, in random order, in place of those of another track; the mean of the changes of the
output is the feature's Shapley value (Štrumbelj and Kononenko, Knowl. Inf. Syst. 41 (2014) 647), computed with Captum
for hundreds of tracks at a time. The other tracks, the background, lack the same values, so features that are missing
get nothing. A track's values add up to its output minus the mean output of its background.

Captum would draw orders at random, and leaves the background to us. Here both are spread evenly, so that fewer
evaluations do: every second order is the reverse of the one before (Mitchell et al., J. Mach. Learn. Res. 23 (2022)
43), and background tracks are equidistant from a random start on among the tracks sorted by species and transverse
momentum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pidml.errors import ToolMissing
from pidml.explanation.sample import Matrix, Sample

Predict = Callable[[Matrix], Matrix]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """What is known of Shapley values beside the values.

    Attributes:
        base: float32 (tracks, outputs), mean output of each track's background; NaN where too few tracks are alike.
        error: float64 (outputs,), standard error of a track's value, from how much two halves of the orders differ:
            root mean square over tracks and features; NaN without values.
    """

    base: Matrix
    error: NDArray[np.float64]

    @property
    def explained(self) -> NDArray[np.bool_]:
        """Which tracks have values, (tracks,)."""
        return np.asarray(~np.isnan(self.base[:, 0]))


def shapley_values(
    predict: Predict, sample: Sample, outputs: Matrix, out: Matrix, *, background: int, chunk: int, seed: int
) -> Estimate:
    """Estimate the Shapley values of every track for every output.

    Args:
        predict: raw features (tracks, features) → outputs (tracks, outputs).
        sample: the tracks; the background of each is drawn from the others that lack the same values.
        outputs: what ``predict`` gives for the sample, float32 (tracks, outputs).
        out: float32 (tracks, outputs, features), may be a memory map; filled chunk by chunk, NaN for missing features,
            and for tracks of which there are no more than ``background`` that lack the same values.
        background: background tracks of each track, a multiple of 4; each stands for one order of the features.
        chunk: tracks looked at at a time, which bounds the memory; they share orders.
        seed: of background tracks and orders.

    Raises:
        ToolMissing: Captum is not installed.
    """
    rng = np.random.default_rng(seed)
    base = np.full(outputs.shape, np.nan, np.float32)
    squares, count = np.zeros(outputs.shape[1]), 0
    for group in sample.alike:
        there = sample.there(group)
        ordered = group[np.lexsort((sample.pt[group], sample.pdg[group]))]
        for start in range(0, len(group), chunk):
            places = np.arange(start, min(start + chunk, len(group)))
            rows = ordered[places]
            found = np.full((len(rows), *out.shape[1:]), np.nan, np.float32)
            if len(group) > background and len(there):
                others = ordered[_spread(places, len(group), background, rng)]
                base[rows] = outputs[others].mean(axis=1, dtype=np.float64)
                orders = _orders(len(there), background, rng)
                changes = _changes(predict, sample.features, outputs, rows, others, there, orders)
                found[..., there] = changes.mean(axis=0)
                squares += _half_difference(changes)
                count += len(rows) * len(there)
            out[rows] = found
    with np.errstate(invalid="ignore"):
        return Estimate(base, np.sqrt(squares / count) if count else np.full(len(squares), np.nan))


def _spread(places: Index, size: int, background: int, rng: np.random.Generator) -> Index:
    """Return for each place in a list of ``size`` others in it, equidistant, (places, background); each as likely."""
    start = rng.random((len(places), 1)) + np.arange(background)
    steps = np.minimum((start * ((size - 1) / background)).astype(np.int64), size - 2)
    return np.asarray((places[:, None] + 1 + steps) % size)


def _orders(columns: int, background: int, rng: np.random.Generator) -> Index:
    """Return random orders of the columns, (background, columns), in pairs of which one is the reverse of the other."""
    orders = np.stack([rng.permutation(columns) for _ in range(background // 2)])
    return np.stack([orders, orders[:, ::-1]], axis=1).reshape(background, columns)


def _changes(
    predict: Predict, features: Matrix, outputs: Matrix, rows: Index, others: Index, there: Index, orders: Index
) -> Matrix:
    """Return by how much outputs change as features of ``rows`` replace those of ``others`` one by one.

    The result is float32 (background, rows, outputs, features that are ``there``).
    """
    try:
        from captum.attr import ShapleyValueSampling
    except ImportError as error:
        raise ToolMissing(
            f"Shapley values need the package captum: {error}", "install the extra: pip install 'pidml[explain]'"
        ) from error
    inputs = torch.from_numpy(features[np.ix_(rows, there)])
    found: list[Matrix] = []
    for order, other in zip(orders, others.T, strict=True):
        method = ShapleyValueSampling(_Walk(predict, features, outputs, rows, other, there, there[order]))
        method.permutation_generator = lambda *_, order=order: iter([order.tolist()])
        baselines = torch.from_numpy(features[np.ix_(other, there)])
        found.append(method.attribute(inputs, baselines=baselines, n_samples=1).numpy())
    return np.stack(found)


class _Walk:
    """What Captum asks for on the way from the background to the tracks.

    The way is known, so all of it is evaluated at once, which is faster than step by step: what a step changed, and
    neither of the ends.
    """

    def __init__(
        self, predict: Predict, features: Matrix, outputs: Matrix, rows: Index, others: Index, there: Index, way: Index
    ) -> None:
        end, now = features[rows], features[others]
        gives = outputs[others]
        inputs, asked = [now[:, there]], []
        for column in way:
            changed = now[:, column] != end[:, column]
            now[:, column] = end[:, column]
            inputs.append(now[:, there])
            arrived = _same(now, end)
            steps = np.flatnonzero(changed & ~arrived)
            asked.append((now[steps], steps, arrived))
        self._inputs, outcome, start = iter(inputs), [gives], 0
        count = sum(len(steps) for _, steps, _ in asked)
        found = predict(np.concatenate([states for states, _, _ in asked])) if count else gives[:0]
        for _, steps, arrived in asked:
            gives = np.where(arrived[:, None], outputs[rows], gives)
            gives[steps] = found[start : start + len(steps)]
            start += len(steps)
            outcome.append(gives)
        self._outcome = iter(outcome)

    def __call__(self, given: Tensor) -> Tensor:
        assert np.array_equal(given.numpy(), next(self._inputs)), "Captum goes another way"
        return torch.from_numpy(next(self._outcome))


def _same(one: Matrix, other: Matrix) -> NDArray[np.bool_]:
    """Return which rows are the same, missing values being the same as each other."""
    return np.asarray(((one == other) | np.isnan(one)).all(axis=1))


def _half_difference(changes: Matrix) -> NDArray[np.float64]:
    """Return the sum over tracks and features of the squared standard error of their mean changes, (outputs,)."""
    pairs = changes.reshape(-1, 2, *changes.shape[1:]).mean(axis=1)
    half = (pairs[0::2].mean(axis=0) - pairs[1::2].mean(axis=0)) / 2
    return np.asarray(np.square(half, dtype=np.float64).sum(axis=(0, 2)))
