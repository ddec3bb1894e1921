"""What a finished job shows on a terminal: its outputs, metrics per species, and where report and bundle are."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from pidml.species import TARGET_NAMES
from pidml.store import Store, comparison_key

_COLUMNS = ("purity", "efficiency", "F1", "AUC")
_METHODS = {"nsigma": "nσ", "bayes": "Bayes", "optimum": "optimum"}


def print_outputs(store: Store, job: str) -> None:
    """Print the outputs of a job: step, digest, state and size.

    Raises:
        UnknownJob: no job of that name ran in the store.
    """
    table = Table("step", "digest", "state", "size", box=SIMPLE_HEAD, pad_edge=False)
    for step, digests in store.read_index(job).items():
        for digest in digests:
            folder = store.output(step, digest)
            there = (folder / "provenance.json").is_file()
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if there else 0
            state = "[green]complete[/]" if there else "[yellow]absent[/]"
            table.add_row(step, digest, state, decimal(size) if there else "")
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print(f"each output lies at {store.root}/STEP/DIGEST")


def print_results(store: Store, job: str) -> None:
    """Print metrics per species, and where the report and the bundle of a job are, as far as they were made.

    Raises:
        UnknownJob: no job of that name ran in the store.
    """
    index = store.read_index(job)
    folders = {step: store.output(step, digests[0]) for step, digests in index.items()}
    console = Console(soft_wrap=True, highlight=False)
    metrics = folders["Benchmark"] / "metrics.csv"
    if metrics.is_file():
        console.print(_metrics_table(metrics))
    for label, path in (("report", folders["Report"] / "report.html"), ("bundle", folders["ExportModel"])):
        console.print(f"{label:9} {path if path.exists() else 'not made'}")


def print_comparison(store: Store, jobs: Sequence[str]) -> None:
    """Print F1 of each model per species, how significantly it differs from the first's, and where the report is.

    Raises:
        UnknownJob: these jobs were not compared in the store.
    """
    (digest,) = store.read_index(comparison_key(jobs))["CompareModels"]
    folder = store.output("CompareModels", digest)
    record = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    names = [model["name"] for model in record["models"]]
    found = {
        (each["model"], each["species"]): each["significance"]
        for each in record["differences"]
        if each["metric"] == "f1" and each["reference"] == names[0]
    }
    table = Table("F1 (σ against the first)", *names, box=SIMPLE_HEAD, pad_edge=False)
    for species in TARGET_NAMES:
        cells = []
        for name in names:
            f1 = record["species"][species][name]["all"]["overall"]["f1"]
            sigma = found.get((name, species))
            cells.append(("–" if f1 is None else f"{f1:.4f}") + ("" if sigma is None else f" ({sigma:+.1f})"))
        table.add_row(species, *cells)
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print(f"report    {folder / 'comparison.html'}")


def _metrics_table(path: Path) -> Table:
    """Return the figures over all tracks and momenta: the network's, and F1 of the other methods."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["selection"] == "all" and not row["pt_low"]]
    by_method = {(row["method"], row["species"]): row for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows if row["method"] != "network"))
    table = Table(
        "species",
        *_COLUMNS,
        *(f"F1 {_METHODS.get(method, method)}" for method in methods),
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,  # 80 columns must do
    )
    for name in TARGET_NAMES:
        own = by_method["network", name]
        others = (by_method[method, name]["f1"] for method in methods)
        table.add_row(name, *(_figure(own[column.lower()]) for column in _COLUMNS), *map(_figure, others))
    return table


def _figure(text: str) -> str:
    return f"{float(text):.4f}" if text else "–"
