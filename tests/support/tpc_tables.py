"""Prepared datasets whose TPC signal departs from the Bethe–Bloch curve in a known way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from support.prepared_data import write_prepared

from pidml.data.prepared import SPLITS, PreparedDataset, Split
from pidml.evaluation.intervals import ONE_SIGMA
from pidml.simulation import response
from pidml.tracks import FEATURES


def _half_width() -> float:
    """Return half the central 68.27 % interval of the relative signal, all numbers of clusters together."""
    widths, probabilities = response.tpc_relative_resolution(response.CLUSTERS), response.CLUSTER_PROBABILITY
    inside = lambda x: float(np.sum(probabilities * special.erf(x / widths / np.sqrt(2)))) - ONE_SIGMA  # noqa: E731
    return float(optimize.brentq(inside, 0.01, 0.2))


RESOLUTION = _half_width()
_SIGNAL = FEATURES.index("fTPCSignal")


def departure(momentum: NDArray[Any], slope: NDArray[Any], sign: NDArray[Any]) -> NDArray[Any]:
    """Return the factor on the signal: a wave in ln p, a slant in pz/pT, a difference between the charges."""
    return 1.15 * (1 + 0.05 * np.sin(2 * np.log(momentum))) * (1 + 0.08 * slope**2) * (1 + 0.02 * sign)


def kinematics(split: Split) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return momentum, pz/pT and charge of a sample's tracks, float64."""
    column = {name: np.asarray(split.features[:, FEATURES.index(name)], np.float64) for name in FEATURES}
    return column["fP"], column["fPz"] / np.hypot(column["fPx"], column["fPy"]), column["fSign"]


def write_departing(path: Path, sizes: tuple[int, int, int], seed: int = 7, outliers: float = 0.0) -> PreparedDataset:
    """Write a prepared dataset with the TPC signal times :func:`departure`, and a part of the signals anything."""
    prepared = write_prepared(path, sizes, seed)
    rng = np.random.default_rng(seed)
    for name in SPLITS:
        split = prepared.split(name)
        features = np.array(split.features)
        features[:, _SIGNAL] *= departure(*kinematics(split))
        wrong = rng.random(len(features)) < outliers
        features[wrong, _SIGNAL] = rng.uniform(20, 400, np.count_nonzero(wrong))
        np.save(path / name / "features.npy", features)
    return PreparedDataset.open(path)
