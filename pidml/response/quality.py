"""How good a TPC response is: bias and width of the pulls of tracks that neither fit nor calibration has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pidml.response.fit import ResponseFit, pulls
from pidml.response.pulls import Pull, binned, pull_of

#: Edges of the bins of momentum (GeV/c) and pseudorapidity in which pulls are looked at.
MOMENTUM_EDGES: tuple[float, ...] = tuple(float(edge) for edge in np.round(np.geomspace(0.1, 10.0, 17), 4))
ETA_EDGES: tuple[float, ...] = tuple(float(edge) for edge in np.round(np.linspace(-0.9, 0.9, 13), 4))


@dataclass(frozen=True)
class Checked:
    """Tracks of one species that neither fit nor calibration has seen; arrays float32 (tracks,).

    Attributes:
        name: species.
        pull: nσ under its own hypothesis.
        momentum: GeV/c.
        eta: pseudorapidity; NaN if the features do not tell.
        residual: signal ÷ expected − 1.
    """

    name: str
    pull: NDArray[np.float32]
    momentum: NDArray[np.float32]
    eta: NDArray[np.float32]
    residual: NDArray[np.float32]


@torch.no_grad()
def checked(fit: ResponseFit) -> list[Checked]:
    """Return the check tracks of every species of a response."""
    part, values = fit.check, pulls(fit.response, fit.check)
    log_expected, log_width = fit.response.learned(part.network_inputs)
    own = part.species[:, None]
    centre = 1 + (log_width.exp() * fit.response.pull_mean).gather(1, own)[:, 0]
    ratio = part.ratio * torch.exp(-log_expected.gather(1, own)[:, 0]) / centre
    columns = (values, part.momentum.numpy(), part.slope.asinh().numpy(), (ratio - 1).numpy())
    species = part.species.numpy()
    return [
        Checked(name, *(column[species == index] for column in columns))
        for index, name in enumerate(fit.response.species)
    ]


def metrics(tracks: Sequence[Checked], examples: dict[str, int]) -> dict[str, Any]:
    """Return bias and width of the pulls per species, in all and in bins, as plain data for JSON.

    Args:
        tracks: per species.
        examples: species asked for → tracks of it among those read; one that was left out has no pulls.
    """
    per_species = {each.name: each for each in tracks}
    result: dict[str, Any] = {}
    for name, number in examples.items():
        each = per_species.get(name)
        result[name] = {
            "examples": number,
            "learned": each is not None,
            "pull": None if each is None else _plain(pull_of(each.pull)),
            "pull_vs_p": [] if each is None else list(map(_plain, binned(each.pull, each.momentum, MOMENTUM_EDGES))),
            "pull_vs_eta": [] if each is None else list(map(_plain, binned(each.pull, each.eta, ETA_EDGES))),
        }
    return {"species": result, "momentum_edges": list(MOMENTUM_EDGES), "eta_edges": list(ETA_EDGES)}


def _plain(pull: Pull | None) -> dict[str, Any] | None:
    return None if pull is None else asdict(pull)
