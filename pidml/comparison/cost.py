"""What a model costs: training time, parameters, time per track through onnxruntime."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml.comparison.contestants import Contestant
from pidml.errors import CorruptFile
from pidml.export.bundle import Bundle
from pidml.provenance import FILE_NAME as PROVENANCE

#: Tracks evaluated one by one, and in batches.
SINGLE, BATCHED = 500, 50_000
_REPEATS = 5


@dataclass(frozen=True)
class Cost:
    """Costs of a model, all its networks together.

    Attributes:
        parameters: trained parameters.
        epochs: epochs trained; the largest number of several networks.
        training_seconds: time spent in training steps.
        response_seconds: time that learning the TPC response took; 0 if nothing is derived from it.
        device: where it was trained.
        single_us: time to evaluate one track for all species on one thread, one track after the other, µs.
        tracks_per_second: tracks evaluated per second in batches.
        threads: threads that these batches were spread over.
    """

    parameters: int
    epochs: int
    training_seconds: float
    response_seconds: float
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
    records = [_record(folder / "training.json", "rerun Train") for folder in contestant.trained]
    alone, together = features[:SINGLE], features[:BATCHED]
    # As O2Physics evaluates tracks: side by side on many cores, the time of each would not be seen.
    one_thread = replace(bundle, threads=1)
    single = _median(lambda: one_thread.predict(alone, batch=1)) / len(alone)
    return asdict(
        Cost(
            parameters=sum(each["parameters"] for each in records),
            epochs=max(each["epochs"] for each in records),
            training_seconds=sum(each["training_seconds"] for each in records),
            response_seconds=_response_seconds(contestant.response),
            device=", ".join(dict.fromkeys(each["device"] for each in records)),
            single_us=1e6 * single,
            tracks_per_second=len(together) / _median(lambda: bundle.predict(together)),
            threads=bundle.threads or len(os.sched_getaffinity(0)),
        )
    )


def _record(path: Path, hint: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path}: no record of a training: {error}", hint) from error
    return found


def _response_seconds(folder: Path | None) -> float:
    """Return how long the step TrainTPCResponse took, s."""
    if folder is None:
        return 0.0
    return float(_record(folder / PROVENANCE, "rerun TrainTPCResponse")["seconds"])


def _median(action: Callable[[], object]) -> float:
    action()  # the first opens the session
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
