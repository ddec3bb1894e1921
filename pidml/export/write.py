"""Writes a bundle: networks per species and for all at once, scaling, thresholds, explanation, manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidml import __version__, tracks
from pidml.atomic import explained, write_json, write_text
from pidml.data.prepared import PreparedDataset
from pidml.errors import ExportError
from pidml.evaluation.tables import plain
from pidml.evaluation.working_points import WorkingPoints, read_working_points
from pidml.export.files import (
    COLUMNS_FILE,
    JOINT,
    MANIFEST,
    SCALING_FILE,
    THRESHOLDS_FILE,
    THRESHOLDS_PT_FILE,
    o2_name,
    weights_name,
)
from pidml.export.onnx_files import write_onnx
from pidml.export.readme import readme
from pidml.export.verify import check_sample, verify
from pidml.identity import file_checksum
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training.classifier import MODEL_FILE, Classifier, load_classifier, read_species

_FORMAT = 1


@dataclass(frozen=True)
class ExportSummary:
    """What a bundle holds and how well it reproduces the trained network.

    Attributes:
        files: names of all files.
        largest_difference: largest difference of a certainty between onnxruntime and torch.
        checked_tracks: number of tracks compared.
        size: bytes in all.
    """

    files: tuple[str, ...]
    largest_difference: float
    checked_tracks: int
    size: int


def export_bundle(
    classifier_dirs: Sequence[Path], prepared: PreparedDataset, job: JobSpec, out_dir: Path
) -> ExportSummary:
    """Write a bundle and verify it by running it.

    Args:
        classifier_dirs: what training wrote: one directory, or one per species.
        prepared: the data the networks were trained on; its validation tracks are used for the comparison.
        job: ``export`` and ``thresholds`` are read.
        out_dir: folder to fill; made if it is not there.

    Raises:
        ExportError: a species lacks a network, a network cannot be expressed, or does not reproduce the trained one.
        TrainingError: the directories hold no models that fit together.
        CorruptFile: a directory lacks the certainties that thresholds are chosen from.
    """
    classifier = load_classifier(classifier_dirs)
    if absent := [name for name in TARGET_NAMES if name not in classifier.species]:
        raise ExportError(f"no network for {', '.join(absent)}", "train all six species before exporting")
    with explained(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        networks = _write_networks(classifier, job, out_dir)
        sample = classifier.scaling.apply(check_sample(prepared, job.export.check_tracks))
        difference = verify(networks, classifier.module, sample, job.export.tolerance)
        for name in TARGET_NAMES:
            shutil.copyfile(out_dir / f"{name}.onnx", out_dir / o2_name(name))
        points = read_working_points(classifier_dirs, prepared, job.thresholds)
        thresholds = dict(zip(TARGET_NAMES, points.thresholds.tolist(), strict=True))
        for directory in map(Path, classifier_dirs):
            shutil.copyfile(directory / MODEL_FILE, out_dir / weights_name(read_species(directory)))
        write_json(out_dir / COLUMNS_FILE, {"columns_for_training": list(classifier.scaling.names)})
        write_json(out_dir / SCALING_FILE, classifier.scaling.as_o2())
        write_json(out_dir / THRESHOLDS_FILE, thresholds)
        if (table := points.table()) is not None:
            write_json(out_dir / THRESHOLDS_PT_FILE, table)
        facts = _facts(classifier, prepared, job, points, len(sample), difference)
        write_text(out_dir / "README", readme(facts))
        files = sorted(path.name for path in out_dir.iterdir() if path.name != MANIFEST)
        entries = {name: _entry(out_dir / name) for name in files}
        write_json(out_dir / MANIFEST, facts | {"files": entries})
    total = sum(entry["size"] for entry in entries.values())
    return ExportSummary((*files, MANIFEST), difference, len(sample), total)


def _write_networks(classifier: Classifier, job: JobSpec, out_dir: Path) -> dict[Path, list[int]]:
    features = len(classifier.scaling.names)
    networks = {out_dir / JOINT: list(range(len(TARGET_NAMES)))}
    order = ", ".join(TARGET_NAMES)
    write_onnx(classifier.module, features, out_dir / JOINT, job.export, f"certainties of {order}")
    for index, name in enumerate(TARGET_NAMES):
        path = out_dir / f"{name}.onnx"
        write_onnx(classifier.module.alone(index).eval(), features, path, job.export, f"certainty of {name}")
        networks[path] = [index]
    return networks


def _facts(
    classifier: Classifier, prepared: PreparedDataset, job: JobSpec, points: WorkingPoints, checked: int,
    difference: float,
) -> dict[str, Any]:  # fmt: skip
    limits = prepared.meta.get("momentum_limits", {})
    default = tracks.MomentumLimits()
    return {
        "format": _FORMAT,
        "pidml": __version__,
        "architecture": classifier.architecture,
        "parameters": classifier.parameters,
        "opset": job.export.opset,
        "ir_version": job.export.ir_version,
        "features": list(classifier.scaling.names),
        "training": classifier.taught.as_json() | {"notices": list(classifier.notices)},
        "momentum_limits": {"tof": limits.get("tof", default.tof), "trd": limits.get("trd", default.trd)},
        "species": [
            {
                "name": target.name,
                "pdg": target.pdg,
                "file": f"{target.name}.onnx",
                "o2_file": o2_name(target.name),
                "threshold": points.overall[target.name].threshold,
            }
            for target in TARGETS
        ],
        "threshold_choice": {
            **plain(points.record()),
            "rule": points.rule.rule,
            "overall_rule": points.rule.overall,
            "notices": points.notices(),
        },
        "check": {"tracks": checked, "largest_difference": difference, "tolerance": job.export.tolerance},
    }


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": file_checksum(path), "size": path.stat().st_size}
