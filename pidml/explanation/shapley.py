"""Shapley values: how each feature of a track moves its certainties away from the mean of comparable tracks.

Features are put in one by one, in random order, in place of those of a background track; the mean of the changes of the
output is the feature's Shapley value (Štrumbelj and Kononenko, Knowl. Inf. Syst. 41 (2014) 647), computed with Captum
for thousands of tracks at a time. A track's values add up to its output minus the mean output of the background. The
background of a track are tracks that lack the same values, so features that are missing get nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pidml.errors import ToolMissing
from pidml.explanation.sample import Matrix, Sample

Predict = Callable[[Matrix], Matrix]


def shapley_values(
    predict: Predict, sample: Sample, out: Matrix, *, background: int, chunk: int, seed: int
) -> NDArray[np.float64]:
    """Estimate the Shapley values of every track for every output.

    Args:
        predict: raw features (tracks, features) → outputs (tracks, outputs).
        sample: the tracks; background tracks are drawn from it.
        out: float32 (tracks, outputs, features), may be a memory map; filled chunk by chunk, NaN for missing features.
        background: background tracks per group of tracks that lack the same values; each stands for one order of the
            features.
        chunk: tracks evaluated at a time, which bounds the memory.
        seed: of background tracks and orders.

    Returns:
        Base values, float64 (groups, outputs): the mean outputs of the background tracks, for each group in
        ``sample.alike``.

    Raises:
        ToolMissing: Captum is not installed.
    """
    rng = np.random.default_rng(seed)
    base = np.empty((len(sample.alike), out.shape[1]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number, group in enumerate(sample.alike):
            drawn = sample.features[rng.choice(group, background, replace=len(group) < background)]
            base[number] = predict(drawn).mean(axis=0, dtype=np.float64)
            there = sample.there(group)
            for start in range(0, len(group), chunk):
                rows = group[start : start + chunk]
                found = np.full((len(rows), *out.shape[1:]), np.nan, np.float32)
                if len(there):  # tracks without any value are all alike
                    found[:, :, there] = _of_chunk(predict, sample.features[rows], drawn, there)
                out[rows] = found
    return base


def _of_chunk(predict: Predict, features: Matrix, background: Matrix, there: NDArray[np.int64]) -> Matrix:
    """Return the values of a chunk, float32 (tracks, outputs, features that are there)."""
    try:
        from captum.attr import ShapleyValueSampling
    except ImportError as error:
        raise ToolMissing(
            f"Shapley values need the package captum: {error}", "install the extra: pip install 'pidml[explain]'"
        ) from error

    def evaluate(given: Tensor) -> Tensor:
        whole = np.full((len(given), features.shape[1]), np.nan, np.float32)
        whole[:, there] = given.numpy()
        return torch.from_numpy(np.ascontiguousarray(predict(whole)))

    method = ShapleyValueSampling(evaluate)
    inputs = torch.from_numpy(np.ascontiguousarray(features[:, there]))
    total: Tensor | None = None
    for each in background:
        found: Tensor = method.attribute(inputs, baselines=torch.from_numpy(each[there][None]), n_samples=1)
        total = found if total is None else total.add_(found)
    assert total is not None
    values: Matrix = (total / len(background)).numpy()
    return values
