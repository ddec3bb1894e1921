"""What a model costs: training time, parameters, time per track through onnxruntime."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml.comparison.contestants import Contestant
from pidml.errors import CorruptFile
from pidml.export.bundle import Bundle

#: Tracks evaluated one by one, and in batches.
SINGLE, BATCHED = 500, 50_000
_REPEATS = 3


@dataclass(frozen=True)
class Cost:
    """Costs of a model, all its networks together.

    Attributes:
        parameters: trained parameters.
        epochs: epochs trained; the largest number of several networks.
        training_seconds: time spent in training steps.
        device: where it was trained.
        single_us: time to evaluate one track for all species, µs.
        tracks_per_second: tracks evaluated per second in batches.
        threads: threads that these batches were spread over.
    """

    parameters: int
    epochs: int
    training_seconds: float
    device: str
    single_us: float
    tracks_per_second: float
    threads: int


def cost(contestant: Contestant, bundle: Bundle, features: NDArray[np.float32]) -> dict[str, Any]:
    """Return the :class:`Cost` of a model as plain data.

    Args:
        contestant: its training outputs say what training took.
        bundle: its networks.
        features: float32 (tracks, features), raw, in the bundle's order; tracks to measure the evaluation with.

    Raises:
        CorruptFile: a training output is damaged.
    """
    records = []
    for folder in contestant.trained:
        path = folder / "training.json"
        try:
            records.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise CorruptFile(f"{path}: no record of a training: {error}", "rerun Train") from error
    alone = features[:SINGLE]
    single = _shortest(lambda: bundle.predict(alone, batch=1)) / len(alone)
    together = features[:BATCHED]
    return asdict(
        Cost(
            parameters=sum(each["parameters"] for each in records),
            epochs=max(each["epochs"] for each in records),
            training_seconds=sum(each["training_seconds"] for each in records),
            device=", ".join(dict.fromkeys(each["device"] for each in records)),
            single_us=1e6 * single,
            tracks_per_second=len(together) / _shortest(lambda: bundle.predict(together)),
            threads=bundle.threads or len(os.sched_getaffinity(0)),
        )
    )


def _shortest(action: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)
