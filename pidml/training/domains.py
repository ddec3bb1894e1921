"""Whether what is missing tells experimental from simulated tracks, before any network is adapted.

Adaptation makes a network hide whatever tells the domains apart. The detector response is meant; a detector that only
one of the samples has would be hidden just as well, at the cost of what it tells about species.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pidml import tracks
from pidml.data.prepared import PreparedDataset
from pidml.data.survey import Survey
from pidml.data.taught import hardly_seen
from pidml.errors import DomainsDiffer

#: Part of a sample from which on a missing pattern, or a feature that is there, gives a sample away that has no such.
_TELLING = 0.05
#: Part of the tracks that would have to change their missing pattern, above which a notice is worth it.
_DIFFERENT = 0.1


def check_domains(prepared: PreparedDataset, experimental: PreparedDataset, undersample: bool) -> Iterator[str]:
    """Compare what is missing in the training samples of both domains; yield what somebody should know.

    Args:
        prepared: simulation.
        experimental: what networks are adapted to.
        undersample: whether batches hold equally many tracks of every missing pattern.

    Raises:
        DomainsDiffer: a feature is there, varies, or a missing pattern occurs, in one of the samples only.
    """
    both = prepared.survey("train"), experimental.survey("train")
    if found := [*_features(*both), *_patterns(*both)]:
        raise DomainsDiffer(
            f"{experimental.path}: adaptation would make the network hide what only one of simulation and experimental "
            f"data has: {'; '.join(found)}",
            "adapt to data with the detectors of the simulation, or hide one in both: "
            "preparation.momentum_limits.trd: 100 (or .tof), for example, hides it below 100 GeV/c",
        )
    first, second = (each.patterns / each.tracks for each in both)
    if not undersample and 0.5 * float(np.abs(first - second).sum()) >= _DIFFERENT:
        shares = ", ".join(
            f"{name} {first[pattern]:.1%} and {second[pattern]:.1%}" for pattern, name in tracks.PATTERN_NAMES.items()
        )
        yield (
            f"missing patterns are distributed differently in simulation and experimental data ({shares}): adaptation "
            "will hide that too; training.undersample: true draws them alike"
        )


def _features(simulated: Survey, experimental: Survey) -> Iterator[str]:
    """Yield features that are there, or vary, in one sample only."""
    shares = simulated.number / simulated.tracks, experimental.number / experimental.tracks
    for name, here, there in zip(simulated.names, *shares, strict=True):
        if min(here, there) == 0 and max(here, there) >= _TELLING:
            yield f"{name} is there for {here:.1%} of simulated and {there:.1%} of experimental tracks"
    for name in sorted(set(simulated.constant) ^ set(experimental.constant)):
        if name not in (*simulated.absent, *experimental.absent):
            which, value = "simulated", simulated.constant.get(name)
            if value is None:
                which, value = "experimental", experimental.constant[name]
            yield f"{name} is {value:g} for all {which} tracks, not for others"


def _patterns(simulated: Survey, experimental: Survey) -> Iterator[str]:
    """Yield missing patterns that occur in one sample only."""
    samples = (simulated, experimental)
    hardly = np.any([hardly_seen(each.patterns) for each in samples], axis=0)
    shares = [each.patterns / each.tracks for each in samples]
    for pattern, name in tracks.PATTERN_NAMES.items():
        if hardly[pattern] and max(share[pattern] for share in shares) >= _TELLING:
            numbers = [f"{each.patterns[pattern]:,} of {each.tracks:,}" for each in samples]
            yield f"missing pattern {name}: {numbers[0]} simulated and {numbers[1]} experimental tracks"
