"""Training: tracks per second of the presets, and how much of the exact optimum's F1 the masked MLP reaches.

Run as ``python benchmarks/train.py``. The plain reference is a loop in PyTorch over a DataLoader of the same data with
the same sizes and batch, built from PyTorch's own parts. Attention is timed on a part of the sample, or on all of it
with ``--accelerator gpu``, which trains both sides on the card; there a second plain loop has the sample on the card,
as the training has. ``--profile`` says what bounds the training, from two more epochs that torch.profiler watches.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _training_profile as profile
import numpy as np
import samples
import torch
from common import emit
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from pidml.data.prepared import PreparedDataset
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.training import TrainingSummary, load_classifier, train
from pidml.training.labels import class_indices

MILLION = 1_000_000
ATTENTION_TRACKS = 60_000
#: Few enough for the profiler to hold every operator of two epochs.
PROFILED_TRACKS = {"masked-mlp": 300_000, "attention": 60_000}
#: Steps between looks at the clock of a card.
CHECKED = 50


def main() -> None:
    """Simulate the input, measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=MILLION, help="simulated tracks, 64 %% of them for training")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--folder", type=Path, help="where samples lie and stay (default: a temporary folder)")
    parser.add_argument("--only", choices=("masked-mlp", "attention"))
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu", help="where both sides train")
    parser.add_argument("--seconds", type=float, default=8.0, help="time of each plain loop")
    parser.add_argument("--profile", action="store_true", help="also profile an epoch of each preset")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="train-benchmark-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        on_gpu = options.accelerator == "gpu"
        if options.only != "attention":
            _masked_mlp(samples.sample(folder, options.tracks, options.seed), Path(temporary), options)
            _profiled("masked-mlp", folder, options)
        if options.only != "masked-mlp":
            tracks = options.tracks if on_gpu else min(options.tracks, ATTENTION_TRACKS)
            _attention(samples.sample(folder, tracks, options.seed), Path(temporary), options)
            _profiled("attention", folder, options)


def _masked_mlp(prepared: PreparedDataset, folder: Path, options: argparse.Namespace) -> None:
    job = samples.job_for("masked-mlp", accelerator=options.accelerator)
    summary, circumstances = _trained("masked-mlp", prepared, job, folder)
    seconds = {"training": round(summary.training_seconds, 1), **circumstances}
    emit("train.masked-mlp.seconds", summary.wall_seconds, "s", **seconds)
    certainty = load_classifier(folder / "masked-mlp").predict(prepared.split("test").features)
    reached = samples.best_f1(prepared, "test", certainty)
    possible = samples.best_f1(prepared, "test", samples.optimum(prepared, "test"))
    for name in TARGET_NAMES:
        fraction = reached[name] / possible[name]
        emit(f"train.masked-mlp.f1_over_optimum.{name}", fraction, "", f1=round(reached[name], 5), **circumstances)
    plain = samples.PlainMlp(len(prepared.features), job.model.hidden)
    _references("masked-mlp", plain, "plain PyTorch loop", prepared, summary, job, options)


def _attention(prepared: PreparedDataset, folder: Path, options: argparse.Namespace) -> None:
    job = samples.job_for("attention", 3, accelerator=options.accelerator)
    summary, _ = _trained("attention", prepared, job, folder)
    plain = samples.PlainAttention(len(prepared.features))
    _references("attention", plain, "nn.TransformerEncoder, plain loop", prepared, summary, job, options)


def _trained(
    preset: str, prepared: PreparedDataset, job: JobSpec, folder: Path
) -> tuple[TrainingSummary, dict[str, Any]]:  # fmt: skip
    """Train into ``folder / preset``; returns the summary, and what is said with every figure."""
    out = folder / preset
    out.mkdir()
    summary = train(prepared, job, TARGET_NAMES, folder / f"{preset}.work", out)
    circumstances = {
        "training_tracks": len(prepared.split("train")), "epochs": summary.epochs, "parameters": summary.parameters,
        "device": summary.device,
    }  # fmt: skip
    emit(f"train.{preset}.throughput", summary.tracks_per_second, "tracks/s", **circumstances)
    return summary, circumstances


def _references(
    preset: str, network: torch.nn.Module, what: str, prepared: PreparedDataset, summary: TrainingSummary, job: JobSpec,
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """Time plain loops on the same device."""
    device = torch.device("cuda" if options.accelerator == "gpu" else "cpu")
    kinds = {"reference": False} | ({"resident_reference": True} if device.type == "cuda" else {})
    for name, resident in kinds.items():
        plain = _plain(network, prepared, job.training.batch_size, options.seconds, device, resident)
        how = "sample on the card" if resident else "DataLoader"
        emit(f"train.{preset}.{name}", plain, "tracks/s", what=f"{what}, {how}, same sizes", device=summary.device)
        emit(f"train.{preset}.over_{name}", summary.tracks_per_second / plain, "", device=summary.device)


def _profiled(preset: str, folder: Path, options: argparse.Namespace) -> None:
    """With ``--profile``, say what bounds the training."""
    if not options.profile:
        return
    prepared = samples.sample(folder, min(options.tracks, PROFILED_TRACKS[preset]), options.seed)
    job = samples.job_for(preset, accelerator=options.accelerator)
    for part, share in profile.shares(prepared, job).items():
        emit(f"train.{preset}.profile.{part}", share, "", what="part of the time of an epoch's steps",
             accelerator=options.accelerator)  # fmt: skip


def _plain(
    network: torch.nn.Module,
    prepared: PreparedDataset,
    batch: int,
    seconds: float,
    device: torch.device,
    resident: bool,
) -> float:
    """Return tracks per second of a plain training loop on a device, with the sample there if ``resident``."""
    features = torch.from_numpy(samples.standardised(prepared, "train"))
    classes = class_indices(np.asarray(prepared.split("train").pdg), TARGET_NAMES)
    targets = torch.from_numpy(np.eye(7, 6, dtype=np.float32)[classes])
    network = network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    if resident:
        features, targets = features.to(device), targets.to(device)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if resident:
            for rows in torch.randperm(len(features), device=device).split(batch):
                yield features[rows], targets[rows]
            return
        loader = DataLoader(
            TensorDataset(features, targets), batch_size=batch, shuffle=True, pin_memory=device.type == "cuda"
        )
        for x, y in loader:
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)

    done, started = 0, 0.0
    while True:
        for number, (x, y) in enumerate(batches()):
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(network(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if number % CHECKED == 0 and device.type == "cuda":
                torch.cuda.synchronize()  # else the clock runs ahead of the card
            if not started:  # the first step allocates, and on a card loads kernels
                started = time.perf_counter()
                continue
            done += len(x)
            elapsed = time.perf_counter() - started
            if elapsed > seconds and (number % CHECKED == 0 or device.type == "cpu"):
                return done / elapsed


if __name__ == "__main__":
    main()
