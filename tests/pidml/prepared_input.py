"""Numbered tracks, and what preparation makes of them."""

import numpy as np
from track_files import make_columns

from pidml.data.prepared import SPLITS
from pidml.spec.data_sections import Preparation

ARRAYS = ("features", "pdg", "aux")


def numbered(n, seed=0, first=0, **changes):
    """Tracks whose fDcaZ is their number in the input, so that they can be told apart afterwards."""
    return make_columns(n, seed) | {"fDcaZ": np.arange(first, first + n, dtype=np.float32)} | changes


def settings_with(**sections):
    return Preparation.model_validate(sections)


def numbers(dataset, split):
    return np.asarray(dataset.split(split).features[:, dataset.features.index("fDcaZ")]).astype(int)


def content(dataset):
    return {
        (name, array): np.load(dataset.path / name / f"{array}.npy").tobytes() for name in SPLITS for array in ARRAYS
    } | {"scaling": (dataset.path / "scaling.json").read_text(), "meta": dataset.meta}


def numbered_frames():
    """Three directories of 2000 tracks each."""
    return {f"DF_{i + 1}": numbered(2000, i, first=2000 * i) for i in range(3)}
