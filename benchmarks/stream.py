"""Training on samples larger than memory: peak resident memory and speed must not depend on the number of tracks.

Run as ``python benchmarks/stream.py --tracks 5000000 50000000``. A prepared sample of a million simulated tracks is
repeated until it has the size asked for (68 bytes per track on the disk), then the masked MLP goes through it once or
more, reading it in blocks. Every size is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import samples
from common import emit, in_fresh_process, peak_memory

from pidml.data.prepared import SPLITS, PreparedDataset
from pidml.errors import DiskFull
from pidml.spec import load_job
from pidml.species import TARGET_NAMES
from pidml.training import train

BYTES_PER_TRACK = 68
SIMULATED, VALIDATION = 1_000_000, 100_000


def main() -> None:
    """Make the samples, measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, nargs="+", default=[5_000_000, 50_000_000], help="training tracks")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--undersample", action="store_true")
    parser.add_argument("--simulated", type=int, default=SIMULATED, help="simulated tracks that are repeated")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--folder", type=Path, help="where samples lie meanwhile (default: a temporary folder)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        _measure(options.measure, options.epochs, options.undersample)
        return
    with tempfile.TemporaryDirectory(prefix="stream-benchmark-", dir=options.folder) as temporary:
        folder = Path(temporary)
        small = samples.sample(folder, options.simulated, options.seed)
        for tracks in options.tracks:
            large = repeated(small, tracks, folder / f"repeated_{tracks}")
            arguments = ["--measure", str(large), "--epochs", str(options.epochs)]
            arguments += ["--undersample"] if options.undersample else []
            found = in_fresh_process(__file__, *arguments)
            shutil.rmtree(large)
            circumstances = {"training_tracks": tracks, **found["circumstances"]}
            emit("stream.peak_memory", found["peak_MiB"], "MiB", **circumstances)
            emit("stream.throughput", found["tracks_per_second"], "tracks/s", **circumstances)
            emit("stream.epoch", found["epoch_seconds"], "s", **circumstances)


def repeated(small: PreparedDataset, tracks: int, place: Path) -> Path:
    """Write a prepared sample whose training sample has ``tracks`` tracks: those of ``small``, again and again.

    Raises:
        DiskFull: there is no room for it.
    """
    needed = tracks * BYTES_PER_TRACK
    if (free := shutil.disk_usage(place.parent).free) < 1.2 * needed:
        raise DiskFull(f"{place}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free", "name another --folder")
    counts = {"train": tracks, "validation": VALIDATION, "test": 0}
    for name in SPLITS:
        (place / name).mkdir(parents=True)
        split = small.split(name)
        for array, values in (("features", split.features), ("pdg", split.pdg)):
            _write(place / name / f"{array}.npy", values, counts[name])
        np.save(place / name / "aux.npy", np.zeros((counts[name], 0), np.float32))
    shutil.copy(small.path / "scaling.json", place)
    (place / "meta.json").write_text(json.dumps({**small.meta, "aux": [], "counts": counts}))
    return place


def _write(path: Path, values: np.ndarray, rows: int) -> None:
    """Write an array of ``rows`` rows, made of repetitions of ``values``, without holding it."""
    values = np.ascontiguousarray(values)
    header = {"descr": values.dtype.str, "fortran_order": False, "shape": (rows, *values.shape[1:])}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, rows, len(values)):
            values[: rows - start].tofile(stream)


def _measure(place: Path, epochs: int, undersample: bool) -> None:
    """Train in this process and print what it took as a JSON line."""
    job = load_job("masked-mlp")
    settings = {"accelerator": "cpu", "max_epochs": epochs, "undersample": undersample}
    job = job.model_copy(update={"training": job.training.model_copy(update=settings)})
    before, started = peak_memory(), time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "out")
        out.mkdir()
        summary = train(PreparedDataset.open(place), job, TARGET_NAMES, Path(temporary, "work"), out, resident_bytes=0)
    found = {
        "peak_MiB": peak_memory(),
        "tracks_per_second": summary.tracks_per_second,
        "epoch_seconds": summary.training_seconds / summary.epochs,
        "circumstances": {
            "epochs": summary.epochs, "undersample": undersample, "before_MiB": round(before),
            "wall_seconds": round(time.perf_counter() - started, 1), "batch": job.training.batch_size,
        },
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
