"""Prepared simulated samples for benchmarks, and plain networks to compare with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pidml.data.prepare import prepare
from pidml.data.prepared import PreparedDataset, Split
from pidml.evaluation.paired import PairedCounts
from pidml.evaluation.thresholds import best_f1_threshold
from pidml.simulation import TableFormat, posterior, write_track_table
from pidml.simulation.distortion import Distortion
from pidml.spec import JobSpec, load_job
from pidml.species import TARGET_NAMES, TARGETS
from pidml.tracks import MomentumLimits


def sample(
    folder: Path, tracks: int, seed: int, distortion: Distortion | None = None, *, labels: bool = True
) -> PreparedDataset:
    """Simulate and prepare ``tracks`` tracks below ``folder``; what is there from an earlier run is used again."""
    kind = ("_distorted" if distortion else "") + ("" if labels else "_unlabelled")
    place = folder / f"prepared_{tracks}_{seed}{kind}"
    if not (place / "meta.json").is_file():
        table = folder / f"tracks_{tracks}_{seed}.root"
        form = TableFormat("O2pidtracksmcml" if labels else "O2pidtracksdataml")
        write_track_table(table, tracks, seed, frames=max(1, tracks // 200_000), form=form, distortion=distortion)
        prepare([table], place, JobSpec().preparation, simulation=labels, seed=seed)
        table.unlink()
    return PreparedDataset.open(place)


def standardised(prepared: PreparedDataset, name: str, rows: int | None = None) -> NDArray[np.float32]:
    """Return the standardised features of a sample's first rows."""
    return prepared.scaling.apply(np.asarray(prepared.split(name).features[:rows]))


def optimum(prepared: PreparedDataset, name: str) -> NDArray[np.float32]:
    """Return the exact posterior of a sample, (tracks, 6)."""
    features = np.asarray(prepared.split(name).features)
    columns = {column: features[:, index] for index, column in enumerate(prepared.features)}
    return posterior(columns, prepared.features, MomentumLimits()).astype(np.float32)


def best_f1(prepared: PreparedDataset, name: str, certainty: NDArray[np.float32]) -> dict[str, float]:
    """Return the largest F1 of each species over all thresholds."""
    pdg = np.asarray(prepared.split(name).pdg)
    return {
        target.name: best_f1_threshold(pdg == target.pdg, certainty[:, index])[1]
        for index, target in enumerate(TARGETS)
    }


def job_for(preset: str, epochs: int | None = None, accelerator: str = "cpu", **sections: Any) -> JobSpec:
    """Return a preset's job.

    Args:
        preset: its name.
        epochs: at most so many, if not None or 0.
        accelerator: where it trains: cpu or gpu.
        sections: section of the job → settings that differ.
    """
    content = load_job(preset).model_dump(mode="json")
    content["training"] |= {"accelerator": accelerator} | ({"max_epochs": epochs} if epochs else {})
    for section, settings in sections.items():
        content[section] |= settings
    return JobSpec.model_validate(content)


def joint_counts(test: Split, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    """Return per species the joint counts of truth and two selections, as ``pidml.evaluation.paired`` takes them."""
    paired = PairedCounts((0.0, np.inf))
    paired.add(np.asarray(test.pdg), np.asarray(test.column("fPt")), first, second)
    return dict(zip(TARGET_NAMES, paired.values.sum(axis=1), strict=True))


def f1(test: Split, accepted: NDArray[np.bool_]) -> dict[str, float]:
    """Return the F1 of each species for given decisions, (tracks, species)."""
    truth = np.stack([np.asarray(test.pdg) == target.pdg for target in TARGETS], axis=1)
    right = (truth & accepted).sum(axis=0)
    values = 2 * right / (truth.sum(axis=0) + accepted.sum(axis=0))
    return {target.name: float(value) for target, value in zip(TARGETS, values, strict=True)}


class PlainMlp(nn.Module):
    """Values and missing bits through hidden layers, as one would write it down."""

    def __init__(self, features: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = (2 * features, *hidden)
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 6))

    def forward(self, x: Tensor) -> Tensor:
        """Return six logits."""
        missing = torch.isnan(x)
        return self.layers(torch.cat([torch.where(missing, 0.0, x), missing.float()], dim=1))


class PlainAttention(nn.Module):
    """The deployed architecture from PyTorch's own parts: one-hot tokens, TransformerEncoder, attention pooling."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(features + 1, 128), nn.ReLU(), nn.Linear(128, 32))
        block = nn.TransformerEncoderLayer(32, 2, 128, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.pooling = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        self.output = nn.Linear(32, 6)
        self.register_buffer("one_hot", torch.eye(features))

    def forward(self, x: Tensor) -> Tensor:
        """Return six logits."""
        missing = torch.isnan(x)
        values = torch.where(missing, 0.0, x)[:, :, None]
        tokens = self.embedding(torch.cat([self.one_hot.expand(len(x), -1, -1), values], dim=2))
        tokens = self.encoder(tokens, src_key_padding_mask=missing)
        weights = self.pooling(tokens).masked_fill(missing[:, :, None], -torch.inf).softmax(dim=1)
        return self.output((weights * tokens).sum(dim=1))
