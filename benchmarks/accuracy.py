"""How close every architecture comes to the exact optimum on tracks that it has not seen, and how far above nσ it is.

Run as ``python benchmarks/accuracy.py``. Every selection, the optimum included, accepts tracks at the thresholds that
are best on the test sample. Architectures without a preset of their own are trained as the ``masked-mlp`` preset says,
attention as ``attention-one-cycle`` does.
The plain reference is the traditional |nσ| < 3 selection.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import samples
from common import emit
from numpy.typing import NDArray

from pidml.data.prepared import PreparedDataset, Split
from pidml.evaluation.nsigma import nsigma_selection
from pidml.evaluation.paired import differences, f1_ratio
from pidml.evaluation.thresholds import best_f1_threshold
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import load_classifier, train

MILLION = 1_000_000
#: Architecture → the preset that says how it is trained.
PRESETS = {
    "masked-mlp": "masked-mlp",
    "attention": "attention-one-cycle",
    "ensemble": "masked-mlp",
    "mlp": "masked-mlp",
    "boosted-trees": "boosted-trees",
    "random-forest": "random-forest",
}


def main() -> None:
    """Simulate the input, train, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=MILLION, help="simulated tracks, 64 %% of them for training")
    parser.add_argument("--seed", type=int, default=2027)
    parser.add_argument("--folder", type=Path, help="where samples lie and stay (default: a temporary folder)")
    parser.add_argument("--max-epochs", type=int, help="epochs at most (default: what the preset says)")
    parser.add_argument("--only", choices=PRESETS, nargs="+", default=PRESETS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="accuracy-benchmark-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prepared = samples.sample(folder, options.tracks, options.seed)
        possible = _selected(prepared.split("test"), samples.optimum(prepared, "test"))
        for architecture in options.only:
            job = samples.job_for(PRESETS[architecture], options.max_epochs, model={"architecture": architecture})
            _measure(architecture, job, prepared, possible, Path(temporary) / architecture)


def _measure(
    architecture: str, job: JobSpec, prepared: PreparedDataset, possible: NDArray[np.bool_], folder: Path
) -> None:
    out = folder / "out"
    out.mkdir(parents=True)
    summary = train(prepared, job, TARGET_NAMES, folder / "work", out)
    circumstances = {"training_tracks": len(prepared.split("train")), "epochs": summary.epochs}
    emit(f"accuracy.{architecture}.seconds", summary.wall_seconds, "s", **circumstances)
    test = prepared.split("test")
    reached = _selected(test, load_classifier(out).predict(test.features))
    for name, cells in samples.joint_counts(test, reached, possible).items():
        ratio = f1_ratio(cells, seed=1)
        over = differences(cells, seed=1)["f1"].significance
        interval = [round(ratio.low, 5), round(ratio.high, 5)]
        emit(
            f"accuracy.{architecture}.f1_over_optimum.{name}", ratio.value, "", interval=interval, above=round(over, 2)
        )
    traditional = nsigma_selection(prepared, job.evaluation)
    assert traditional is not None, "the simulation labels its tracks"
    accepted = traditional.deviations(test, slice(0, len(test))) < traditional.limit
    for name, cells in samples.joint_counts(test, reached, accepted).items():
        emit(f"accuracy.{architecture}.f1_over_nsigma.{name}", f1_ratio(cells, seed=1).value, "")


def _selected(test: Split, certainty: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return decisions at the thresholds that are best on these very tracks, (tracks, species)."""
    pdg = np.asarray(test.pdg)
    cuts = [best_f1_threshold(pdg == target.pdg, certainty[:, index])[0] for index, target in enumerate(TARGETS)]
    result: NDArray[np.bool_] = certainty >= np.array(cuts, np.float32)
    return result


if __name__ == "__main__":
    main()
