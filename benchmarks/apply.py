"""Applying a bundle to files: tracks per second from ROOT to ROOT and Parquet, and peak memory for files of two sizes.

Run as ``python benchmarks/apply.py``. Each measurement runs in a process of its own and includes its imports. The plain
reference reads the whole file with uproot, evaluates it in one session of onnxruntime and writes everything at once:
what one would write without this package. Networks of the presets' sizes are trained for one epoch, since the time does
not depend on the weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import emit, in_fresh_process, peak_memory

SEED = 77
PRESETS = ("masked-mlp", "attention")


def main() -> None:
    """Simulate the input, measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=2_000_000, help="tracks of the file that is timed")
    parser.add_argument("--small", type=int, default=200_000, help="tracks of the other files")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where input and output lie (default: a temporary folder)")
    parser.add_argument("--step", nargs=4, metavar=("STEP", "BUNDLE", "INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, *paths = options.step
        print(json.dumps(_timed(STEPS[step], *map(Path, paths))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="apply-benchmark-") as temporary:
        _measure(Path(temporary), options.tracks, options.small, options.repeats)


def _measure(folder: Path, tracks: int, small: int, repeats: int) -> None:
    from pidml.simulation.files import simulate_files

    bundles = {preset: _bundle(folder, preset) for preset in PRESETS}
    (large,) = simulate_files(folder / "large", tracks, 1, "tracks", SEED, frames=max(1, tracks // 200_000))
    (few,) = simulate_files(folder / "few", small, 1, "tracks", SEED, frames=1)
    (raw,) = simulate_files(folder / "raw", small, 1, "ao2d", SEED, frames=2)
    mlp, attention = bundles.values()
    best = _figure("masked-mlp.root", "apply", mlp, large, folder / "scores.root", tracks, repeats)
    _figure("masked-mlp.parquet", "apply", mlp, large, folder / "scores.parquet", tracks, repeats)
    _figure("masked-mlp.few", "apply", mlp, few, folder / "scores.root", small, repeats)
    _figure("masked-mlp.ao2d", "apply", mlp, raw, folder / "scores.root", small, repeats)
    _figure("attention.root", "apply", attention, few, folder / "scores.root", small, repeats)
    plain = _figure("masked-mlp.reference", "reference", mlp, large, folder / "scores.root", tracks, repeats)
    emit("apply.masked-mlp.over_reference", plain / best, "", tracks=tracks)


def _figure(name: str, step: str, bundle: Path, given: Path, out: Path, tracks: int, repeats: int) -> float:
    """Measure, print tracks per second and peak memory, and return the shortest time in s."""
    results = []
    for _ in range(repeats):
        out.unlink(missing_ok=True)
        results.append(in_fresh_process(__file__, "--step", step, str(bundle), str(given), str(out)))
    times = sorted(result["seconds"] for result in results)
    size = round(out.stat().st_size / 2**20, 1)
    facts = {"tracks": tracks, "repeats": repeats, "output_MiB": size, "median": round(tracks / times[len(times) // 2])}
    emit(f"apply.{name}", tracks / times[0], "tracks/s", **facts)
    emit(f"apply.{name}.peak_memory", max(result["peak_MiB"] for result in results), "MiB", tracks=tracks)
    return float(times[0])


def _bundle(folder: Path, preset: str) -> Path:
    import samples

    from pidml.export import export_bundle
    from pidml.spec import load_job
    from pidml.species import TARGET_NAMES
    from pidml.training import train

    prepared = samples.sample(folder, 20_000, SEED)
    job = load_job(preset)
    training = job.training.model_copy(update={"accelerator": "cpu", "max_epochs": 1})
    job = job.model_copy(update={"training": training})
    trained = folder / f"{preset}.trained"
    trained.mkdir()
    train(prepared, job, TARGET_NAMES, folder / f"{preset}.work", trained)
    export_bundle([trained], prepared, job, folder / preset)
    return folder / preset


def _apply(bundle: Path, given: Path, out: Path) -> None:
    from pidml.apply import apply_bundle
    from pidml.export import Bundle

    apply_bundle(Bundle.open(bundle), [given], out)


def _reference(bundle: Path, given: Path, out: Path) -> None:
    import numpy as np
    import onnxruntime
    import uproot

    names = json.loads((bundle / "columns_for_training.json").read_text())["columns_for_training"]
    scaling = {name: rest for name, *rest in json.loads((bundle / "scaling_params.json").read_text())["data"]}
    thresholds = json.loads((bundle / "thresholds.json").read_text())
    with uproot.open(given) as file:
        trees = [file[key] for key in file.keys(cycle=False) if "/O2pidtracks" in key]
        parts = [tree.arrays([*names, "fPt"], library="np") for tree in trees]
    columns = {name: np.concatenate([part[name] for part in parts]).astype(np.float32) for name in [*names, "fPt"]}
    columns["fTRDPattern"][(columns["fTRDPattern"] == 0) | (columns["fP"] < 0.8)] = np.nan
    for name in ("fTOFSignal", "fBeta"):
        columns[name][columns["fP"] < 0.5] = np.nan
    scaled = [(columns[n] - scaling[n][0]) / scaling[n][1] if n in scaling else columns[n] for n in names]
    session = onnxruntime.InferenceSession(bundle / "pid.onnx", providers=["CPUExecutionProvider"])
    features = np.stack(scaled, axis=1).astype(np.float32)
    parts = [session.run(None, {"features": part})[0] for part in np.array_split(features, len(features) // 4096 + 1)]
    certainties = np.concatenate(parts)
    rows = {name: columns[name] for name in ("fP", "fPt", "fPx", "fPy", "fPz", "fSign")}
    for index, (name, threshold) in enumerate(thresholds.items()):
        rows |= {f"certainty_{name}": certainties[:, index], f"accepted_{name}": certainties[:, index] >= threshold}
    with uproot.recreate(out) as file:
        file["scores"] = rows


def _timed(work: Callable[[Path, Path, Path], None], bundle: Path, given: Path, out: Path) -> dict[str, float]:
    started = time.perf_counter()
    work(bundle, given, out)
    return {"seconds": time.perf_counter() - started, "peak_MiB": peak_memory()}


STEPS: dict[str, Callable[[Path, Path, Path], None]] = {"apply": _apply, "reference": _reference}

if __name__ == "__main__":
    main()
