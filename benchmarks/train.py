"""Training: tracks per second of the presets, and how much of the exact optimum's F1 the masked MLP reaches.

Run as ``python benchmarks/train.py``. The plain reference is a loop in PyTorch over a DataLoader of the same data with
the same sizes and batch, built from PyTorch's own parts. Attention is timed on a part of the sample.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import samples
import torch
from common import emit
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from pidml.data.prepared import PreparedDataset
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train
from pidml.training.labels import class_indices

MILLION = 1_000_000
ATTENTION_TRACKS = 60_000


def main() -> None:
    """Simulate the input, measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=MILLION, help="simulated tracks, 64 %% of them for training")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--folder", type=Path, help="where samples lie and stay (default: a temporary folder)")
    parser.add_argument("--only", choices=("masked-mlp", "attention"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="train-benchmark-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.only != "attention":
            _masked_mlp(samples.sample(folder, options.tracks, options.seed), Path(temporary))
        if options.only != "masked-mlp":
            _attention(samples.sample(folder, ATTENTION_TRACKS, options.seed), Path(temporary))


def _masked_mlp(prepared: PreparedDataset, folder: Path) -> None:
    job = samples.job_for("masked-mlp")
    out = folder / "masked-mlp"
    out.mkdir()
    summary = train(prepared, job, TARGET_NAMES, folder / "masked-mlp.work", out)
    rows = len(prepared.split("train"))
    circumstances = {"training_tracks": rows, "epochs": summary.epochs, "parameters": summary.parameters}
    emit("train.masked-mlp.throughput", summary.tracks_per_second, "tracks/s", **circumstances)
    seconds = {"training": round(summary.training_seconds, 1), **circumstances}
    emit("train.masked-mlp.seconds", summary.wall_seconds, "s", **seconds)
    certainty = load_classifier(out).predict(prepared.split("test").features)
    reached = samples.best_f1(prepared, "test", certainty)
    possible = samples.best_f1(prepared, "test", samples.optimum(prepared, "test"))
    for name in TARGET_NAMES:
        fraction = reached[name] / possible[name]
        emit(f"train.masked-mlp.f1_over_optimum.{name}", fraction, "", f1=round(reached[name], 5), **circumstances)
    plain = _plain(samples.PlainMlp(len(prepared.features), job.model.hidden), prepared, job.training.batch_size)
    emit("train.masked-mlp.reference", plain, "tracks/s", what="plain PyTorch loop, DataLoader, same sizes")
    emit("train.masked-mlp.over_reference", summary.tracks_per_second / plain, "")


def _attention(prepared: PreparedDataset, folder: Path) -> None:
    job = samples.job_for("attention", 3)
    out = folder / "attention"
    out.mkdir()
    summary = train(prepared, job, TARGET_NAMES, folder / "attention.work", out)
    rows = len(prepared.split("train"))
    circumstances = {"training_tracks": rows, "epochs": summary.epochs, "parameters": summary.parameters}
    emit("train.attention.throughput", summary.tracks_per_second, "tracks/s", **circumstances)
    plain = _plain(samples.PlainAttention(len(prepared.features)), prepared, job.training.batch_size)
    emit("train.attention.reference", plain, "tracks/s", what="nn.TransformerEncoder, plain loop, same sizes")
    emit("train.attention.over_reference", summary.tracks_per_second / plain, "")


def _plain(network: torch.nn.Module, prepared: PreparedDataset, batch: int, seconds: float = 8.0) -> float:
    """Return tracks per second of a plain training loop."""
    features = torch.from_numpy(samples.standardised(prepared, "train"))
    classes = class_indices(np.asarray(prepared.split("train").pdg), TARGET_NAMES)
    targets = torch.from_numpy(np.eye(7, 6, dtype=np.float32)[classes])
    loader = DataLoader(TensorDataset(features, targets), batch_size=batch, shuffle=True)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    network.train()
    done, started = 0, time.perf_counter()
    while True:
        for x, y in loader:
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(network(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += len(x)
            elapsed = time.perf_counter() - started
            if elapsed > seconds:
                return done / elapsed


if __name__ == "__main__":
    main()
