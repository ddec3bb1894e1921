"""Preparation of samples: tracks per second from ROOT to arrays, and peak memory for files of different size.

Run as ``python benchmarks/prepare.py``; ``--large 0`` leaves out the 20 million tracks and the minutes they take.
Each measurement runs in a process of its own. The plain reference reads the whole file with uproot, standardises and
shuffles in memory and saves with NumPy: what one would write without this package.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import emit, in_fresh_process, peak_memory

MILLION = 1_000_000
SEED = 42


def main() -> None:
    """Simulate the input, measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=2 * MILLION, help="tracks of the file that is timed")
    parser.add_argument("--large", type=int, default=20 * MILLION, help="tracks of the file for the memory figure")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where input and output lie (default: a temporary folder)")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, folder = options.step
        print(json.dumps(STEPS[step](Path(folder), options.tracks)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="prepare-benchmark-") as folder:
        small = _figures(folder, options.tracks, options.repeats)
        reference = [_run("reference", folder, options.tracks) for _ in range(options.repeats)]
        best = min(result["seconds"] for result in reference)
        emit("prepare.reference", options.tracks / best, "tracks/s", tracks=options.tracks, what="plain, in memory")
        emit("prepare.reference_memory", reference[0]["peak_MiB"], "MiB", tracks=options.tracks)
        emit("prepare.over_reference", best / small, "", tracks=options.tracks)
        if options.large:
            _figures(folder, options.large, 1)


def _figures(folder: str, tracks: int, repeats: int) -> float:
    """Measure the preparation of a file of ``tracks`` tracks, print the figures and return the shortest time (s)."""
    _run("simulate", folder, tracks)
    results = [_run("prepare", folder, tracks) for _ in range(repeats)]
    times = [result["seconds"] for result in results]
    emit(
        "prepare.throughput",
        tracks / min(times),
        "tracks/s",
        tracks=tracks,
        repeats=repeats,
        median=round(tracks / statistics.median(times)),
        cpu_seconds=round(min(result["cpu_seconds"] for result in results), 2),
    )
    emit("prepare.peak_memory", max(result["peak_MiB"] for result in results), "MiB", tracks=tracks)
    return min(times)


def _run(step: str, folder: str, tracks: int) -> dict[str, float]:
    return in_fresh_process(__file__, "--step", step, folder, "--tracks", str(tracks))


def _input(folder: Path, tracks: int) -> Path:
    return folder / f"tracks_{tracks}.root"


def _simulate(folder: Path, tracks: int) -> dict[str, float]:
    from pidml.simulation import write_track_table

    for old in folder.glob("tracks_*.root"):
        old.unlink()
    write_track_table(_input(folder, tracks), tracks, SEED, frames=max(1, tracks // 200_000))
    return {}


def _prepare(folder: Path, tracks: int) -> dict[str, float]:
    from pidml.data.prepare import prepare
    from pidml.spec.data_sections import Preparation

    with tempfile.TemporaryDirectory(dir=folder) as out:
        return _timed(
            lambda: prepare([_input(folder, tracks)], Path(out), Preparation(), simulation=True, seed=SEED), tracks
        )


def _reference(folder: Path, tracks: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        return _timed(lambda: _plain(_input(folder, tracks), Path(out)), tracks)


def _plain(path: Path, out: Path) -> None:
    import numpy as np
    import uproot

    from pidml.tracks import FEATURES, STANDARDISED, TRAINING_COLUMNS

    pool = uproot.ThreadPoolExecutor(2)
    with uproot.open(path) as file:
        frames = [
            file[key].arrays(library="np", decompression_executor=pool, interpretation_executor=pool)
            for key in file.keys(cycle=False)
            if key.endswith("/O2pidtracksmcml")
        ]
    columns = {c.name: np.concatenate([frame[c.name] for frame in frames]) for c in TRAINING_COLUMNS}
    features = np.column_stack([columns[name].astype(np.float32) for name in FEATURES])
    order = np.random.default_rng(SEED).permutation(len(features))
    cut = int(0.64 * len(order))
    for index, name in enumerate(FEATURES):
        if name in STANDARDISED:
            training = features[order[:cut], index]
            features[:, index] -= np.nanmean(training, dtype=np.float64)
            features[:, index] /= np.nanstd(training, dtype=np.float64)
    np.save(out / "features.npy", features[order])
    np.save(out / "pdg.npy", columns["fPdgCode"][order])


def _timed(work: Callable[[], object], tracks: int) -> dict[str, float]:
    start, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    print(f"{tracks / seconds:.0f} tracks/s", file=sys.stderr)
    return {"seconds": seconds, "cpu_seconds": used, "peak_MiB": peak_memory()}


STEPS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "simulate": _simulate,
    "prepare": _prepare,
    "reference": _reference,
}

if __name__ == "__main__":
    main()
