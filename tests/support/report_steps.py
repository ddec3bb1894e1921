"""Outputs of a job's steps as a report shows them, made in seconds, with hostile text wherever a report shows text."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from support.prepared_data import write_prepared

from pidml import provenance, species
from pidml.evaluation.benchmark import judge
from pidml.explanation.explain import explain
from pidml.explore import explore
from pidml.plots import comparison, performance
from pidml.spec import JobSpec
from pidml.training import TrainingSummary
from pidml.training.calibration import Calibration

HOSTILE = "<script>alert('x')</script>\"'><img src=http://evil.example/x.png>"


def scores(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Certainties that follow the TPC signal, good enough to fill a report."""
    x = np.nan_to_num(features[:, :1]) / 100
    return (1 / (1 + np.exp(-(x - np.linspace(0.2, 1.2, 6))))).astype(np.float32)


def write_training(folder: Path, names: tuple[str, ...] = species.TARGET_NAMES) -> None:
    """Write what a training leaves for the report."""
    folder.mkdir()
    summary = TrainingSummary(
        tuple(names),
        39_713,
        3,
        1,
        1,
        0.123,
        12_345.0,
        75.2,
        90.0,
        HOSTILE,
        1,
        Calibration((1.0,), (0.0,), 0.2, 0.2),
        dict.fromkeys(names, 0.5),
        {},
        notices=(f"kaon: certainties are no better than chance {HOSTILE}",),
    )
    (folder / "training.json").write_text(json.dumps(dataclasses.asdict(summary)))
    (folder / "thresholds.json").write_text(json.dumps(summary.thresholds))
    lines = ["epoch,train_loss,val_loss,lr,seconds,tracks_per_second"]
    lines += [f"{epoch},{0.5 / (epoch + 1)},{0.6 / (epoch + 1)},0.001,1.5,20000" for epoch in range(3)]
    (folder / "history.csv").write_text("\n".join(lines))


def write_steps(root: Path) -> dict[str, Path]:
    """Write the outputs of all steps below ``root``; returns step → folder."""
    data = write_prepared(root / "PrepareDataset", (4_000, 500, 1_500))
    (root / "Benchmark").mkdir()
    (root / "ExploreData").mkdir()
    record = judge(data, scores, np.full(6, 0.5), JobSpec(), root / "Benchmark", draw=False)
    kaon = species.by_name("kaon")
    comparison.summary(record, root / "Benchmark" / "summary.png")
    performance.against_pt(record, kaon, root / "Benchmark" / "kaon.png")
    common = {"title": f"F1 {HOSTILE}", "caption": "c", "subject": "s"}
    record["plots"] = [
        {"file": "summary.png", "species": None} | common,
        {"file": "kaon.png", "species": "kaon"} | common,
    ]
    (root / "Benchmark" / "metrics.json").write_text(json.dumps(record))
    explore(data, root / "ExploreData")
    (root / "ExplainModel").mkdir()
    few = JobSpec.model_validate({"evaluation": {"explain_tracks": 200}})
    explain(data, scores, np.full(6, 0.5), few, root / "ExplainModel")
    write_training(root / "Train")
    (root / "ExportModel").mkdir()
    (root / "ExportModel" / "manifest.json").write_text(json.dumps({
        "files": {"pion.onnx": {"sha256": "ab" * 32, "size": 1234567}, HOSTILE: {"sha256": "cd" * 32, "size": 1}},
        "check": {"tracks": 10_000, "largest_difference": 3.2e-7, "tolerance": 1e-5}, "opset": 17, "ir_version": 9,
    }))  # fmt: skip
    for name in ("Benchmark", "Train"):
        provenance.write_provenance(
            root / name, task=name, digest="0123456789ab", started=provenance.now(), seconds=61.0
        )
    names = ("PrepareDataset", "ExploreData", "Train", "Benchmark", "ExplainModel", "ExportModel")
    return {name: root / name for name in names}
