"""The best any classifier can do, known exactly where the tracks come from this package's own simulation.

The simulation's likelihood is known in closed form and gives each track's posterior for exactly the inputs a network
sees. Cut at the threshold that maximises F1 on the validation sample, as for networks, it is the optimum against
which they are measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidml import simulation, tracks
from pidml.data.prepared import PreparedDataset

Features = NDArray[np.float32]
_MOMENTUM = {"fPx", "fPy", "fPz"}
#: Of the columns of the full table some say more, such as the number of clusters.
_DESCRIBED = {column.name for column in tracks.TRAINING_COLUMNS}


@dataclass(frozen=True)
class Posterior:
    """The exact posterior for a dataset's features and momentum limits."""

    features: tuple[str, ...]
    limits: tracks.MomentumLimits

    def predict(self, features: Features) -> NDArray[np.float32]:
        """Return the probability of each target species, shape (tracks, 6), float32.

        Args:
            features: raw values, shape (tracks, features), NaN for missing.
        """
        columns = {name: features[:, index] for index, name in enumerate(self.features)}
        return simulation.posterior(columns, self.features, self.limits).astype(np.float32)


def exact_posterior(prepared: PreparedDataset, *, primaries_only: bool = False) -> tuple[Posterior | None, str]:
    """Return the exact posterior for a dataset, or None with the reason why it is not known.

    Args:
        prepared: its ``meta.json`` says in ``likelihood_known`` whether this package simulated all its tracks.
        primaries_only: whether the dataset was cut to physical primaries.
    """
    if not prepared.meta.get("likelihood_known", False):
        return None, "the tracks do not come from this package's simulation, whose likelihood alone is known exactly"
    if unknown := sorted(set(prepared.features) - _DESCRIBED):
        return None, f"the likelihood does not describe {', '.join(unknown)}"
    if not set(prepared.features) >= _MOMENTUM:
        return None, "the features do not hold the momentum's three components, which the likelihood needs"
    if primaries_only:
        return None, "only primaries were kept, which the likelihood does not describe"
    limits = prepared.meta["momentum_limits"]
    return Posterior(prepared.features, tracks.MomentumLimits(tof=limits["tof"], trd=limits["trd"])), ""
