"""Reads what the steps of a job left behind, in the form in which the report's template shows it."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pidml import species
from pidml.errors import CorruptFile
from pidml.evaluation.counts import CLASS_NAMES
from pidml.plots import style
from pidml.replicas.plan import COLUMNS
from pidml.report import texts
from pidml.report.verdict import verdict
from pidml.tracks import PATTERN_NAMES

#: Key of ``training.json``, what the report calls it, and how it writes it.
_TRAINING_FACTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("parameters", "trained parameters", texts.number),
    ("epochs", "epochs trained", texts.number),
    ("resumed_epochs", "of these before an interruption", texts.number),
    ("best_epoch", "epoch that is kept", lambda value: texts.number(value + 1)),
    ("validation_loss", "its validation loss (nats per track)", lambda value: texts.decimal(value, 5)),
    ("tracks_per_second", "training tracks per second", texts.number),
    ("training_seconds", "time in training steps", texts.duration),
    ("wall_seconds", "time in all", texts.duration),
    ("device", "device", str),
)
_DOMAIN_CAPTION = (
    "How often the discriminator tells experimental from simulated validation tracks by the network's last hidden "
    "layer, and the weight of its reversed gradient at the end of each epoch."
)
#: The same for ``adaptation`` in ``training.json``, if it is there.
_ADAPTATION_FACTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("method", "adapted to experimental data by", str),
    ("experimental_tracks", "experimental training tracks", texts.number),
    ("domain_accuracy", "accuracy of the discriminator (chance: 0.5)", lambda value: texts.decimal(value, 3)),
    ("domain_loss", "its loss (nats; chance: 0.693)", lambda value: texts.decimal(value, 3)),
)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        CorruptFile: it is absent or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path}: cannot be shown in the report: {error}", "rerun the step that made it") from error


def image(content: bytes, title: str, caption: str) -> dict[str, Any]:
    """Return a PNG as the template shows it: data URI, size in CSS pixels, title and caption."""
    width, height = struct.unpack(">II", content[16:24])
    return {
        "uri": "data:image/png;base64," + base64.b64encode(content).decode("ascii"),
        "width": round(width * 96 / style.DPI),
        "height": round(height * 96 / style.DPI),
        "title": title,
        "caption": caption,
    }


def images(folder: Path, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the plots that a step lists as the template shows them, with their subject and species.

    Raises:
        CorruptFile: a plot cannot be read.
    """
    shown = []
    for record in records:
        path = folder / Path(record["file"]).name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CorruptFile(
                f"{path}: cannot be shown in the report: {error}", "rerun the step that made it"
            ) from error
        shown.append(image(content, record["title"], record["caption"]) | {
            "species": record["species"], "subject": record["subject"],
        })  # fmt: skip
    return shown


def spoken(target: species.Species) -> dict[str, Any]:
    """Return what the template needs to name a species; HTML text instead of Matplotlib's."""
    signs = {"pion": "π⁺", "kaon": "K⁺", "proton": "p", "antipion": "π⁻", "antikaon": "K⁻", "antiproton": "p̅"}
    return {"name": target.name, "symbol": signs[target.name], "pdg": target.pdg, "colour": style.colour(target)}


def summary(folder: Path | None) -> dict[str, Any] | None:
    """Return the six tiles and one sentence of verdict, or None without a benchmark."""
    if folder is None:
        return None
    metrics = read_json(folder / "metrics.json")
    ratios = metrics["fraction_of_optimum"]
    thresholds = metrics["methods"]["network"]["thresholds"]
    tiles = []
    for target in species.TARGETS:
        own = {name: method["all"]["overall"] for name, method in metrics["species"][target.name].items()}
        tiles.append(
            spoken(target)
            | {
                "network": own["network"],
                "nsigma": own.get("nsigma"),
                "bayes": own.get("bayes"),
                "optimum": own.get("optimum"),
                "ratio": ratios[target.name] if ratios else None,
                "threshold": thresholds[target.name],
            }
        )
    return {"tiles": tiles, "verdict": verdict(tiles), "sample": metrics["sample"]}


def benchmark(folder: Path | None) -> dict[str, Any] | None:
    """Return metrics, figures and tables per species, or None without a benchmark."""
    if folder is None:
        return None
    metrics = read_json(folder / "metrics.json")
    figures = images(folder, metrics["plots"])
    methods = [name for name in ("network", "nsigma", "bayes", "optimum") if name in metrics["methods"]]
    tabs = []
    for target in species.TARGETS:
        own = metrics["species"][target.name]
        tabs.append(
            spoken(target)
            | {
                "figures": [figure for figure in figures if figure["species"] == target.name],
                "selections": [
                    {"name": name, "methods": {method: own[method][name]["overall"] for method in methods}}
                    for name in ("all", *PATTERN_NAMES.values())
                ],
                "bins": [
                    {method: own[method]["all"]["bins"][index] for method in methods}
                    for index in range(len(metrics["pt_edges"]) - 1)
                ],
                "calibration_error": metrics["methods"]["network"]["calibration"][target.name][
                    "expected_calibration_error"
                ],
            }
        )
    return {
        "tabs": tabs,
        "figures": [figure for figure in figures if figure["species"] is None],
        "methods": {
            name: metrics["methods"][name] | {"label": _plain_label(metrics["methods"][name]["label"])}
            for name in methods
        },
        "not_available": metrics["not_available"],
        "notices": metrics.get("notices", []),
        "interval": metrics["interval"],
        "denominator": metrics["denominator"],
        "sample": metrics["sample"],
    }


def explanation(folder: Path | None) -> dict[str, Any] | None:
    """Return figures and tables of feature importance, or None if it was not measured."""
    if folder is None:
        return None
    record = read_json(folder / "explanation.json")
    figures = images(folder, record["plots"])
    tabs = []
    for target in species.TARGETS:
        shapley = record["shapley"][target.name]["all"]
        ranked = sorted(shapley, key=lambda name: -shapley[name]["mean_abs"])
        tabs.append(
            spoken(target)
            | {
                "figures": [figure for figure in figures if figure["species"] == target.name],
                "rows": [
                    {"name": f"all {name}" if name in record["kinds"] else name, "shapley": shapley[name]}
                    | record["permutation"][target.name]["all"].get(name, {})
                    for name in sorted(ranked, key=lambda name: name in record["kinds"])
                ],
            }
        )
    errors = [each for each in record["shapley_error"].values() if each is not None]
    shown = ("tracks", "without_shapley", "repeats", "background", "kinds", "thresholds")
    return {key: record[key] for key in shown} | {
        "error": math.sqrt(sum(each * each for each in errors) / len(errors)) if errors else None,
        "tabs": tabs,
        "figures": [figure for figure in figures if figure["species"] is None],
    }


def replicas(folder: Path | None) -> dict[str, Any] | None:
    """Return the figure and the table of F1 and AUC of a job's replicas, or None without any."""
    if folder is None:
        return None
    record = read_json(folder / "spread.json")
    spread, titles = record["spread"], {"test": "", "held-out": ", held-out tracks"}
    columns = [
        {"place": (varied, sample, figure), "title": f"{text}, {varied}{titles[sample]}"}
        for figure, text in (("f1", "F1"), ("auc", "AUC"))
        for varied, sample in COLUMNS
        if sample in spread.get(varied, {})
    ]
    rows = []
    for target in species.TARGETS:
        cells = [
            spread[varied][sample][target.name][figure] for varied, sample, figure in (c["place"] for c in columns)
        ]
        seeds = spread.get("seeds")
        chance = seeds["test"][target.name]["f1"]["least_difference"] if seeds else None
        rows.append(spoken(target) | {"cells": cells, "chance": chance})
    name = species.TARGET_NAMES[0]
    return {key: record[key] for key in ("tracks", "confidence")} | {
        "trainings": {varied: own["test"][name]["f1"]["replicas"] for varied, own in spread.items()},
        "columns": columns,
        "rows": rows,
        "figures": images(folder, record["plots"]),
    }


def _plain_label(label: str) -> str:
    return label.replace("$", "").replace(r"\sigma", "σ")


def data(prepared: Path | None, explored: Path | None) -> dict[str, Any] | None:
    """Return counts, cuts and figures about the data, or None without any."""
    if prepared is None and explored is None:
        return None
    result: dict[str, Any] = {"meta": None, "counts": None, "features": None, "figures": []}
    if prepared is not None:
        result["meta"] = read_json(prepared / "meta.json")
    if explored is not None:
        record = read_json(explored / "exploration.json")
        result["figures"] = images(explored, record["plots"])
        result["features"] = record["features"]
        result["counts"] = _count_table(record["counts"])
        result["tracks"] = record["tracks"]
    return result


def _count_table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per species that occurs: tracks per sample and share of each missing pattern; the total last."""
    frame = pd.DataFrame(records)
    rows = []
    for name in (*CLASS_NAMES, None):
        own = frame if name is None else frame[frame["species"] == name]
        total = int(own["tracks"].sum())
        if not total:
            continue
        rows.append(
            {
                "species": name or "all",
                "total": total,
                "splits": own.groupby("split")["tracks"].sum().to_dict(),
                "patterns": {k: v / total for k, v in own.groupby("pattern")["tracks"].sum().items()},
            }
        )
    return rows


def training(folders: Mapping[str, Path]) -> dict[str, Any] | None:
    """Return the figure of the losses and the facts of each training, or None without one."""
    if not folders:
        return None
    from pidml.plots import training as plots

    histories, best, facts, notices = {}, {}, [], []
    for step, folder in folders.items():
        record = read_json(folder / "training.json")
        names = record["species"]
        name = names[0] if len(names) == 1 else step if len(folders) > 1 else "network"
        try:
            histories[name] = pd.read_csv(folder / "history.csv")
        except (OSError, ValueError) as error:
            raise CorruptFile(f"{folder / 'history.csv'}: {error}", "rerun Train") from error
        best[name] = record["best_epoch"]
        notices += record.get("notices", [])
        shown = {key: write(record[key]) for key, _, write in _TRAINING_FACTS}
        if adaptation := record.get("adaptation"):
            shown |= {key: write(adaptation[key]) for key, _, write in _ADAPTATION_FACTS}
        facts.append({"name": name, "shown": shown})
    drawn = plots.history(histories, best)
    figures = [image(drawn, "Loss and learning rate", "Mean loss per track of training and validation sample.")]
    rows = [(key, text) for key, text, _ in _TRAINING_FACTS]
    if adapted := {name: rows for name, rows in histories.items() if "domain_accuracy" in rows}:
        figures.append(image(plots.domains(adapted), "Adaptation to experimental data", _DOMAIN_CAPTION))
        rows += [(key, text) for key, text, _ in _ADAPTATION_FACTS]
    return {"figures": figures, "facts": facts, "rows": rows, "notices": list(dict.fromkeys(notices))}


def response(folder: Path | None) -> dict[str, Any] | None:
    """Return figures and pulls of the TPC response, or None without one."""
    if folder is None:
        return None
    record = read_json(folder / "response_metrics.json")
    return {
        "figures": images(folder, record["plots"]),
        "species": record["species"],
        "tracks": record["tracks"],
        "inputs": record["inputs"],
    }


def bundle(folder: Path | None) -> dict[str, Any] | None:
    """Return the files of the bundle and what its verification found, or None without a bundle."""
    if folder is None:
        return None
    manifest = read_json(folder / "manifest.json")
    files = [
        {"name": name, "sha256": entry["sha256"], "bytes": entry["size"]} for name, entry in manifest["files"].items()
    ]
    return {
        "files": files,
        "check": manifest["check"],
        "opset": manifest["opset"],
        "ir_version": manifest["ir_version"],
    }


def provenance(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the provenance of each step that has one, in the order given."""
    found = []
    for step, folder in folders.items():
        path = folder / "provenance.json"
        if path.is_file():
            found.append({"step": step} | read_json(path))
    return found
