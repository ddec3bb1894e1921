"""Derived features: F1 with nσ of a learned TPC response beside F1 without, on the same tracks, and what it costs.

Run as ``python benchmarks/derive.py``. The simulated signal lies on the Bethe–Bloch curve that every network knows, so
the derived features can tell it nothing new there. A second sample has signals that depart from it with momentum, angle
and charge, as those of a detector do before they are corrected: the departure is a known factor, the same for all
species, so the optimum of F1 is the same. Ratios have the 68.27 % interval of a paired bootstrap.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import samples
from common import emit
from numpy.typing import NDArray

from pidml.data.prepared import SPLITS, PreparedDataset
from pidml.evaluation.paired import f1_ratio
from pidml.response import TpcResponse, load_response, train_tpc_response
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train


def main() -> None:
    """Simulate the input, measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=1_000_000, help="simulated tracks, 64 %% of them for training")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--preset", default="masked-mlp")
    parser.add_argument("--epochs", type=int, default=0, help="instead of the preset's")
    parser.add_argument("--folder", type=Path, help="where samples lie and stay (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="derive-benchmark-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        plain = samples.sample(folder, options.tracks, options.seed)
        possible = samples.best_f1(plain, "test", samples.optimum(plain, "test"))
        patience = {"patience": options.epochs} if options.epochs else {}
        job = samples.job_for(options.preset, options.epochs, training=patience)
        for name, prepared in (("on_curve", plain), ("departing", _departing(plain))):
            _compare(name, prepared, possible, job, Path(temporary) / name)


def _departing(plain: PreparedDataset) -> PreparedDataset:
    """Return a copy of a sample whose TPC signals depart from the curve: up to 5 % in p, 6 % in η, 2 % by charge."""
    place = plain.path.with_name(f"{plain.path.name}_departing")
    if place.is_dir():
        return PreparedDataset.open(place)
    unfinished = place.with_suffix(".unfinished")
    shutil.copytree(plain.path, unfinished, dirs_exist_ok=True)
    names = list(plain.features)
    for name in SPLITS:
        features = np.array(plain.split(name).features)
        p, px, py, pz, sign = (features[:, names.index(each)] for each in ("fP", "fPx", "fPy", "fPz", "fSign"))
        slope = pz / np.hypot(px, py)
        factor = 1.15 * (1 + 0.05 * np.sin(2 * np.log(p))) * (1 + 0.08 * slope**2) * (1 + 0.02 * sign)
        features[:, names.index("fTPCSignal")] *= factor
        np.save(unfinished / name / "features.npy", features)
    unfinished.rename(place)
    return PreparedDataset.open(place)


def _compare(name: str, prepared: PreparedDataset, possible: dict[str, float], job: JobSpec, folder: Path) -> None:
    """Learn the response, train with and without it, and print."""
    (folder / "response").mkdir(parents=True)
    summary = train_tpc_response(prepared, job, folder / "response")
    response = load_response(folder / "response", prepared.scaling)
    used = {"tracks": summary.fitted_tracks + summary.calibration_tracks + summary.check_tracks}
    emit(f"derive.{name}.response_seconds", summary.seconds, "s", **used)
    for species, width in summary.width.items():
        emit(f"derive.{name}.pull_width.{species}", width, "", bias=round(summary.bias[species], 4))
    deriving = job.model_copy(update={"dataset": job.dataset.model_copy(update={"derive": ("tpc_nsigma",)})})
    without, seconds = _trained(prepared, job, [], folder / "without")
    derived, longer = _trained(prepared, deriving, [response], folder / "with")
    test = prepared.split("test")
    for species, cells in samples.joint_counts(test, derived, without).items():
        ratio = f1_ratio(cells, seed=1)
        interval = {"low": round(ratio.low, 5), "high": round(ratio.high, 5)}
        emit(f"derive.{name}.f1_over_plain.{species}", ratio.value, "", **interval)
    for kind, accepted in (("without", without), ("with", derived)):
        reached = samples.f1(test, accepted)
        fractions = {species: round(reached[species] / possible[species], 5) for species in TARGET_NAMES}
        mean = float(np.mean(list(fractions.values())))
        emit(f"derive.{name}.f1_over_optimum.{kind}", mean, "", what="mean of six species", **fractions)
    emit(f"derive.{name}.training_time_over_plain", longer / seconds, "", seconds=round(longer, 1))


def _trained(
    prepared: PreparedDataset, job: JobSpec, derived: list[TpcResponse], out: Path
) -> tuple[NDArray[np.bool_], float]:
    """Train; return the decisions on the test sample, (tracks, 6), and the time it took."""
    out.mkdir()
    started = time.perf_counter()
    summary = train(prepared, job, TARGET_NAMES, out.with_suffix(".work"), out, derived=derived)
    seconds = time.perf_counter() - started
    cuts = np.array([summary.thresholds[name] for name in TARGET_NAMES], np.float32)
    return load_classifier(out).predict(prepared.split("test").features) >= cuts, seconds


if __name__ == "__main__":
    main()
