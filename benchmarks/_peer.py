"""AlicePIDML itself beside pidml, on the same simulated tracks: time, throughput and F1 of both trainings.

Run as ``python benchmarks/_peer.py --peer DIR --python PYTHON``: DIR is a checkout of mytkom/AlicePIDML, PYTHON an
interpreter in which its training runs. ``make bench`` leaves this out, as nothing of the peer comes with pidml.

The peer trains one network per species: its attention model, as its default configuration says, on the processor. It
gets our training, validation and test tracks, and its own cuts, scaling, undersampling and thresholds. F1 is the
largest over all thresholds on the test sample, for both sides and for the exact optimum.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import samples
from common import emit

from pidml.data.prepared import PreparedDataset
from pidml.errors import PidmlError
from pidml.evaluation.thresholds import best_f1_threshold
from pidml.species import TARGET_NAMES, by_name
from pidml.training import load_classifier, train

MILLION = 1_000_000
PRESETS = ("masked-mlp", "attention-one-cycle")
Result = dict[str, Any]


def main() -> None:
    """Simulate the input, train both sides, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a checkout of mytkom/AlicePIDML")
    parser.add_argument("--python", default=sys.executable, help="Python in which its training runs")
    parser.add_argument("--tracks", type=int, default=MILLION, help="simulated tracks, 64 %% of them for training")
    parser.add_argument("--seed", type=int, default=2027)
    parser.add_argument("--species", choices=TARGET_NAMES, nargs="*", default=TARGET_NAMES, help="the peer's networks")
    parser.add_argument("--epochs", type=int, help="the peer's epochs at most (default: what it says itself)")
    parser.add_argument("--all-tracks", action="store_true", help="let the peer leave out no tracks: no undersampling")
    parser.add_argument("--folder", type=Path, help="where samples and results lie, stay, and are used again")
    options = parser.parse_args()
    if options.peer is None or not (options.peer / "src" / "pdi").is_dir():
        parser.error("--peer must name a checkout of mytkom/AlicePIDML, the folder with src/pdi in it; "
                     "--python the interpreter of an environment with what it imports")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="peer-benchmark-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prepared = samples.sample(folder, options.tracks, options.seed)
        results = folder / f"results_{options.tracks}_{options.seed}"
        possible = samples.best_f1(prepared, "test", samples.optimum(prepared, "test"))
        ours = {preset: _ours(preset, prepared, results / preset, possible) for preset in PRESETS}
        settings = {"max_epochs": options.epochs} if options.epochs else {}
        if options.all_tracks:
            settings |= {"undersample_pions": False, "undersample_missing_detectors": False}
        for name in options.species:
            theirs = _theirs(name, settings, prepared, results, options)
            _compare(name, theirs, ours, possible[name])


def _ours(preset: str, prepared: PreparedDataset, folder: Path, possible: dict[str, float]) -> Result:
    """Train a preset on all six species, print what it took and reached, and return that."""

    def measured() -> Result:
        (folder / "out").mkdir(parents=True)
        summary = train(prepared, samples.job_for(preset), TARGET_NAMES, folder / "work", folder / "out")
        certainty = load_classifier(folder / "out").predict(prepared.split("test").features)
        return {
            "seconds": summary.wall_seconds,
            "throughput": summary.tracks_per_second,
            "epochs": summary.epochs,
            "f1": samples.best_f1(prepared, "test", certainty),
        }

    result = _kept(folder / "result.json", measured)
    circumstances = {"species": len(TARGET_NAMES), "epochs": result["epochs"],
                     "training_tracks": len(prepared.split("train"))}  # fmt: skip
    emit(f"peer.{preset}.seconds", result["seconds"], "s", **circumstances)
    emit(f"peer.{preset}.throughput", result["throughput"], "tracks/s", **circumstances)
    for name, value in result["f1"].items():
        emit(f"peer.{preset}.f1.{name}", value, "", over_optimum=round(value / possible[name], 5))
    return result


def _theirs(
    name: str, settings: dict[str, Any], prepared: PreparedDataset, results: Path, options: argparse.Namespace
) -> Result:
    """Train the peer's network for a species; returns what it took and reached."""
    chosen = "_".join(f"{key}-{value}" for key, value in settings.items())
    folder = (results / "alicepidml").resolve()
    run = folder / (chosen or "default") / name

    def measured() -> Result:
        run.mkdir(parents=True, exist_ok=True)
        task = {"peer": str(options.peer.resolve()), "prepared": str(prepared.path.resolve()), "pdg": by_name(name).pdg,
                "training": settings}  # fmt: skip
        (run / "task.json").write_text(json.dumps(task), encoding="utf-8")
        command = [options.python, str(Path(__file__).with_name("_peer_training.py").resolve()), str(run / "task.json")]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        with (run / "log.txt").open("wb") as log:
            ended = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=False)
        if ended.returncode != 0:
            end = (run / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
            raise PidmlError(f"{' '.join(command)} ended with status {ended.returncode}:\n{end}")
        result: Result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        scores = np.load(run / "scores.npz")
        result["test_tracks"] = len(scores["pdg"])
        result["f1"] = best_f1_threshold(scores["pdg"] == by_name(name).pdg, scores["certainty"])[1]
        return result

    return _kept(run / "measured.json", measured)


def _compare(name: str, theirs: Result, ours: dict[str, Result], possible: float) -> None:
    """Print what the peer's network for a species took and reached, and pidml's over that."""
    throughput = theirs["tracks"] / theirs["training_seconds"]
    circumstances = {key: theirs[key] for key in ("epochs", "tracks", "batch_size", "workers", "undersampled")}
    emit(f"peer.alicepidml.seconds.{name}", theirs["seconds"], "s",
         training=round(theirs["training_seconds"], 1), **circumstances)  # fmt: skip
    emit(f"peer.alicepidml.throughput.{name}", throughput, "tracks/s", species=1, **circumstances)
    emit(f"peer.alicepidml.f1.{name}", theirs["f1"], "", over_optimum=round(theirs["f1"] / possible, 5),
         at_own_threshold=round(theirs["f1_at_own_threshold"], 5), test_tracks=theirs["test_tracks"],
         epochs_tracks_seconds_f1_loss=theirs["history"], **circumstances)  # fmt: skip
    for preset, result in ours.items():
        emit(f"peer.{preset}.f1_over_peer.{name}", result["f1"][name] / theirs["f1"], "")
        emit(f"peer.{preset}.seconds_over_peer.{name}", result["seconds"] / theirs["seconds"], "",
             what="six species over one")  # fmt: skip
        emit(f"peer.{preset}.throughput_over_peer.{name}", result["throughput"] * len(TARGET_NAMES) / throughput, "",
             what="tracks times species per second")  # fmt: skip


def _kept(path: Path, measure: Callable[[], Result]) -> Result:
    """Return what an earlier run left at ``path``; if there is nothing, measure and leave it there."""
    if not path.is_file():
        result = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result), encoding="utf-8")
    kept: Result = json.loads(path.read_text(encoding="utf-8"))
    return kept


if __name__ == "__main__":
    main()
