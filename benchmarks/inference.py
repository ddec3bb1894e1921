"""Inference through onnxruntime: one track at a time and in batches, all six species, mixed missing patterns.

Run as ``python benchmarks/inference.py``. The time does not depend on the weights, so the networks are not trained. The
plain reference is PyTorch running a network of the same sizes built from PyTorch's own parts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import samples
import torch
from common import emit, median_seconds
from numpy.typing import NDArray

from pidml.data.prepared import PreparedDataset
from pidml.export.onnx_files import write_onnx
from pidml.export.runtime import BATCH, run, session
from pidml.export.verify import check_sample
from pidml.spec import load_job
from pidml.species import TARGET_NAMES
from pidml.training.classifier import Certainty
from pidml.training.fit import initial_network

TRACKS = 200_000
SINGLES = 2000


def main() -> None:
    """Export the presets' networks, measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inference-benchmark-") as folder:
        prepared = samples.sample(Path(folder), TRACKS, options.seed)
        features = prepared.scaling.apply(check_sample(prepared, TRACKS))
        for preset in ("masked-mlp", "attention"):
            _measure(preset, prepared, features, Path(folder), options.repeats)


def _measure(preset: str, prepared: PreparedDataset, features: NDArray[np.float32], folder: Path, repeats: int) -> None:
    job = load_job(preset)
    network = Certainty(initial_network(prepared, job, TARGET_NAMES), job.training.objective).eval()
    path = folder / f"{preset}.onnx"
    write_onnx(network, features.shape[1], path, job.export, "benchmark")
    opened = session(path)
    part = features if preset == "masked-mlp" else features[:16_384]
    batched = len(part) / median_seconds(lambda: run(opened, part, threads=0), repeats)
    emit(f"inference.{preset}.batches", batched, "tracks/s", batch=BATCH, tracks=len(part))
    single = median_seconds(lambda: run(opened, features[:SINGLES], 1), repeats) / SINGLES
    emit(f"inference.{preset}.single", 1e6 * single, "µs", tracks=SINGLES)

    width = len(prepared.features)
    plain = samples.PlainMlp(width, job.model.hidden) if preset == "masked-mlp" else samples.PlainAttention(width)
    plain = plain.eval()
    tensors = torch.from_numpy(part)

    @torch.inference_mode()
    def reference(rows: int, size: int) -> None:
        for start in range(0, rows, size):
            torch.sigmoid(plain(tensors[start : start + size]))

    expected = len(part) / median_seconds(lambda: reference(len(part), BATCH), repeats)
    emit(f"inference.{preset}.batches_reference", expected, "tracks/s", batch=BATCH, what="plain PyTorch, same sizes")
    emit(f"inference.{preset}.batches_over_reference", batched / expected, "")
    slow = median_seconds(lambda: reference(SINGLES, 1), 3) / SINGLES
    emit(f"inference.{preset}.single_over_reference", slow / single, "", reference_us=round(1e6 * slow, 1))


if __name__ == "__main__":
    main()
