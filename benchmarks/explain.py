"""Feature importance of 10,000 tracks: seconds and memory of the whole step, per preset.

Run as ``python benchmarks/explain.py``. The time does not depend on a network's weights, so networks are trained for
one epoch. It does depend on the number of trees and leaves, which the figures name: boosted trees learn so slowly, and
the forest so patiently, that all rounds of the presets are kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import samples
from common import emit, in_fresh_process, peak_memory

from pidml.explanation import explain_model
from pidml.explanation.explain import BACKGROUND, REPEATS
from pidml.models.trees import Trees
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train

#: Preset → simulated tracks at least, epochs (trees know none), and settings that differ.
PRESETS: dict[str, tuple[int, int, dict[str, dict[str, float]]]] = {
    "masked-mlp": (0, 1, {}),
    "attention": (0, 1, {}),
    "boosted-trees": (200_000, 0, {"model": {"shrinkage": 0.01}}),
    "random-forest": (200_000, 0, {"training": {"patience": 100, "min_improvement": 0.0}}),
}
TRACKS = 10_000


def main() -> None:
    """Measure each preset in a process of its own and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--tracks", type=int, default=TRACKS, help="tracks that are explained")
    parser.add_argument("--only", choices=PRESETS)
    parser.add_argument("--preset", choices=PRESETS, help="measure one preset in this process and print it as JSON")
    options = parser.parse_args()
    if options.preset:
        print(json.dumps(_measured(options.preset, options.tracks, options.seed)))
        return
    for preset in [options.only] if options.only else PRESETS:
        arguments = ("--preset", preset, "--tracks", str(options.tracks), "--seed", str(options.seed))
        found = in_fresh_process(__file__, *arguments)
        size = {"tracks": options.tracks, "background": BACKGROUND, "exchanges": REPEATS, **found["trees"]}
        emit(f"explain.{preset}.time", found["seconds"], "s", **size, parameters=found["parameters"])
        emit(f"explain.{preset}.peak_memory", found["peak_memory"], "MiB", **size, before=found["memory_before"])
        emit(f"explain.{preset}.shapley_error", found["error"], "", **size, rms_value=found["rms_value"])


def _measured(preset: str, tracks: int, seed: int) -> dict[str, Any]:
    simulated, epochs, sections = PRESETS[preset]
    job = samples.job_for(preset, epochs, **sections, evaluation={"explain_tracks": tracks})
    with tempfile.TemporaryDirectory(prefix="explain-benchmark-") as temporary:
        folder = Path(temporary)
        prepared = samples.sample(folder, max(simulated, 6 * tracks), seed)
        trained, out = folder / "trained", folder / "explained"
        trained.mkdir()
        out.mkdir()
        summary = train(prepared, job, TARGET_NAMES, folder / "work", trained)
        forests = [p.forest() for p in load_classifier([trained]).module.modules() if isinstance(p, Trees)]
        before = peak_memory()
        started = time.perf_counter()
        record = explain_model(prepared, [trained], job, out)
        seconds = time.perf_counter() - started
        after = peak_memory()
        values = np.load(out / "shapley.npy", mmap_mode="r")
        rms = float(np.sqrt(np.nanmean(np.square(values))))
    error = float(np.sqrt(np.mean(np.square(list(record["shapley_error"].values())))))
    trees = {"trees": len(forests[0].roots), "leaves": len(forests[0].values)} if forests else {}
    return {
        "trees": trees,
        "seconds": seconds, "peak_memory": after, "memory_before": before, "parameters": summary.parameters,
        "error": error, "rms_value": rms,
    }  # fmt: skip


if __name__ == "__main__":
    main()
