"""Raw features whose values are far from order 1: constants of the training sample that bring them there.

Columns of order 1 are let through up to a largest magnitude. What lies beyond for a feature that enters raw would be
lost, all of it if need be: such a feature is standardised inside the graph, as others are before it.
"""

from __future__ import annotations

import logging

import numpy as np

from pidml.data.prepared import PreparedDataset, rows_of
from pidml.data.statistics import Moments, scaling_from
from pidml.models.base import Inputs, Spread
from pidml.models.physics import PhysicsInputs

_log = logging.getLogger(__name__)

#: Largest standardised value that is let through: what lies beyond is an outlier, and must not dominate.
LARGEST = 8.0
#: Raw features whose values are far from order 1, with the factor that brings them there.
FACTORS = {"fTRDPattern": 1 / 64}
#: Training tracks that are looked at to arrange a network's inputs: the first ones (the sample's order is random).
INPUT_TRACKS = 200_000


def spread_of(prepared: PreparedDataset) -> Spread:
    """Return mean and standard deviation of the raw features that would be cut off, of training tracks."""
    names, survey = prepared.features, prepared.survey("train")
    replaced = PhysicsInputs(Inputs.of(prepared.scaling)).replaces
    far = {
        name: (float(low), float(high))
        for name, low, high in zip(names, survey.low, survey.high, strict=True)
        if name not in (*prepared.scaling.standardised, *replaced)
        and max(abs(low), abs(high)) * FACTORS.get(name, 1.0) > LARGEST
    }
    if not far:
        return {}
    rows = rows_of(prepared.split("train").features, slice(0, INPUT_TRACKS))
    columns = [names.index(name) for name in far]
    scaling = scaling_from(Moments.of(np.ascontiguousarray(rows[:, columns])), names, list(far))
    found = {}
    for column, (name, (low, high)) in zip(columns, far.items(), strict=True):
        mean, std = float(scaling.mean[column]), float(scaling.std[column])
        if max(abs(low - mean), abs(high - mean)) > 0 and std == 1.0:  # hardly any of these tracks has the feature
            mean, std = (low + high) / 2, max((high - low) / 2, 1.0)
        found[name] = (mean, std)
    return found


def tell(spread: Spread) -> None:
    """Say in the log which features are standardised though they enter raw."""
    for name, (mean, std) in spread.items():
        _log.info(
            "%s enters raw, with values beyond ±%g: networks see (%s − %.4g) ÷ %.4g", name, LARGEST, name, mean, std
        )
