"""What must be said of a training whose settings let a network learn little, or that learned nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pidml.data.taught import Taught
from pidml.evaluation.delong import auc_error, placements
from pidml.spec import JobSpec
from pidml.spec.model_sections import TREES
from pidml.training.undersampling import each_pattern, undersampling_notices

#: Optimiser steps that an epoch should have, at least.
_LEAST_STEPS = 5
#: Standard errors by which an AUC must exceed 0.5; tracks of a species, and others, without which none can be told.
_SIGNIFICANT, _LEAST_TRACKS = 2.0, 20


def notices_before(taught: Taught, job: JobSpec) -> list[str]:
    """Return what the training sample does not teach, and what settings make of it."""
    lines = [*taught.notices(), *undersampling_notices(taught, job.training)]
    return lines if job.model.architecture in TREES else lines + list(_few_steps(taught, job))


def _few_steps(taught: Taught, job: JobSpec) -> Iterator[str]:
    """Yield a line if a batch is so large a part of an epoch that the optimiser hardly takes a step."""
    training = job.training
    rows = int(each_pattern(np.array(taught.patterns)).sum()) if training.undersample else taught.tracks
    steps = max(1, rows // training.batch_size)
    if steps < _LEAST_STEPS:
        yield (
            f"training.batch_size is {training.batch_size:,}, an epoch takes {rows:,} tracks: {steps} optimiser "
            f"step{'s' if steps > 1 else ''} per epoch and {steps * training.max_epochs:,} at most in all; lower "
            "training.batch_size, or the network may learn little"
        )


def chance_notices(
    classes: NDArray[np.int64], certainties: NDArray[np.float32], species: Sequence[str]
) -> Iterator[str]:
    """Yield a line for each species that certainties tell from other tracks no better than chance.

    That is, its AUC is not significantly above 0.5, or all certainties are the same.

    Args:
        classes: position of each track's species, (tracks,).
        certainties: float32 (tracks, species).
        species: their names.
    """
    for index, name in enumerate(species):
        truth, scores = classes == index, np.ascontiguousarray(certainties[:, index])
        signal = int(truth.sum())
        if not 0 < signal < len(truth):
            continue
        if scores.min() == scores.max():
            found = f"every track has the certainty {scores[0]:.4f}"
        elif min(signal, len(truth) - signal) < _LEAST_TRACKS:
            continue
        else:
            placed = placements(truth, scores)
            area, error = float(placed.signal.mean()), auc_error(placed)
            if area - 0.5 > _SIGNIFICANT * error:
                continue
            found = f"AUC {area:.3f} ± {error:.3f}, chance is 0.5"
        yield (
            f"{name}: certainties are no better than chance on {len(truth):,} validation tracks ({found}), so that any "
            "threshold accepts at random; change the settings of model and training (learning rate, batch size, size), "
            "or give more tracks"
        )
