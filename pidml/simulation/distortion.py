"""Response that differs from the simulated one, as that of experimental data does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from pidml.simulation import response

if TYPE_CHECKING:
    from pidml.simulation.generate import SimulatedTracks


@dataclass(frozen=True)
class Distortion:
    """What is changed; the default changes nothing. The likelihood of distorted tracks is not that of the simulation.

    Attributes:
        tpc_gain: factor on the TPC signal.
        tpc_smearing: relative width of a Gaussian that the TPC signal is smeared with besides.
        tof_shift: ps added to the time of flight.
        tof_smearing: ps, width of a Gaussian that the time of flight is smeared with besides.
    """

    tpc_gain: float = 1.0
    tpc_smearing: float = 0.0
    tof_shift: float = 0.0
    tof_smearing: float = 0.0

    def apply(self, rng: Generator, tracks: SimulatedTracks) -> None:
        """Change TPC and TOF signals of tracks in place."""
        columns, truth, size = tracks.columns, tracks.truth, len(tracks.truth["p"])
        factor = self.tpc_gain * (1 + self.tpc_smearing * rng.standard_normal(size))
        columns["fTPCSignal"] = (columns["fTPCSignal"] * factor).astype(np.float32)
        late = self.tof_shift + self.tof_smearing * rng.standard_normal(size)
        flight = truth["length"] / (response.LIGHT * truth["beta"]) + late
        truth["tof"] += late
        truth["beta"] = truth["length"] / (response.LIGHT * flight)
        columns["fTOFSignal"], columns["fBeta"] = truth["tof"].astype(np.float32), truth["beta"].astype(np.float32)


#: What the experimental files of the sandbox GRID have: differences of a size met before a calibration is final.
EXPERIMENT = Distortion(tpc_gain=1.05, tpc_smearing=0.03, tof_shift=20.0, tof_smearing=40.0)
