"""Feature importance: seconds and memory for 10,000 tracks (1,000 with the slower network).

Run as ``python benchmarks/explain.py``. The time does not depend on the weights, so the networks are not trained.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import samples
from common import emit, in_fresh_process, peak_memory

from pidml.explanation.explain import explain
from pidml.spec import load_job
from pidml.species import TARGET_NAMES
from pidml.training.classifier import Certainty, Classifier
from pidml.training.fit import initial_network

#: Preset → tracks that are explained.
TRACKS = {"masked-mlp": 10_000, "attention": 1_000}


def main() -> None:
    """Measure each preset in a process of its own and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--preset", help="measure one preset in this process and print it as JSON")
    options = parser.parse_args()
    if options.preset:
        print(json.dumps(_measured(options.preset, TRACKS[options.preset], options.seed)))
        return
    for preset, tracks in TRACKS.items():
        found = in_fresh_process(__file__, "--preset", preset, "--seed", str(options.seed))
        size = {"tracks": tracks}
        emit(f"explain.{preset}.time", found["seconds"], "s", **size)
        emit(f"explain.{preset}.peak_memory", found["peak_memory"], "MiB", **size, before=found["memory_before"])


def _measured(preset: str, tracks: int, seed: int) -> dict[str, float]:
    job = load_job(preset)
    job = job.model_copy(update={"evaluation": job.evaluation.model_copy(update={"explain_tracks": tracks})})
    with tempfile.TemporaryDirectory(prefix="explain-benchmark-") as folder:
        prepared = samples.sample(Path(folder), 6 * tracks, seed)
        network = initial_network(prepared, job, TARGET_NAMES).eval()
        classifier = Classifier(
            TARGET_NAMES, prepared.scaling, Certainty(network, job.training.objective).eval(),
            network.evaluation_batch, job.model.architecture, network.parameter_count,
        )  # fmt: skip
        before = peak_memory()
        started = time.perf_counter()
        explain(prepared, classifier.predict, np.full(len(TARGET_NAMES), 0.5), job, Path(folder))
        seconds = time.perf_counter() - started
        after = peak_memory()
    return {"seconds": seconds, "peak_memory": after, "memory_before": before}


if __name__ == "__main__":
    main()
