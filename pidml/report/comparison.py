"""Writes the report of a comparison of models: one HTML file in the style of a job's report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidml import __version__
from pidml.atomic import write_text
from pidml.report.collect import images, spoken
from pidml.report.write import environment
from pidml.species import TARGETS

#: A difference counts as significant from this many standard deviations on.
SIGNIFICANT = 3.0
_METRICS = ("purity", "efficiency", "f1", "auc")


def write_comparison(out_file: Path, record: dict[str, Any], folder: Path) -> None:
    """Write one self-contained HTML file about a comparison.

    Args:
        out_file: where to; written atomically.
        record: the content of ``comparison.json``.
        folder: where the plots that it lists lie.

    Raises:
        CorruptFile: a plot is absent.
    """
    figures = images(folder, record["plots"])
    names = [each["name"] for each in record["models"]]
    text = environment().get_template("comparison.html.j2").render(
        version=__version__,
        record=record,
        names=names,
        metrics=_METRICS,
        significant=SIGNIFICANT,
        verdict=verdict(record),
        figures=[each for each in figures if each["species"] is None],
        tabs=[_tab(record, target, figures) for target in TARGETS],
        pairs=_pairs(record),
    )  # fmt: skip
    write_text(out_file, text)


def _tab(record: dict[str, Any], target: Any, figures: list[dict[str, Any]]) -> dict[str, Any]:
    own = record["species"][target.name]
    models = {each["name"]: own[each["name"]]["all"]["overall"] for each in record["models"]}
    known = {name: each["f1"] for name, each in models.items() if each["f1"] is not None}
    return spoken(target) | {
        "models": models,
        "best": max(known, key=lambda name: known[name]) if known else None,
        "figures": [each for each in figures if each["species"] == target.name],
    }


def _pairs(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return, per pair of models, the differences by species and metric."""
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for each in record["differences"]:
        key = (each["model"], each["reference"])
        pair = pairs.setdefault(key, {"model": key[0], "reference": key[1], "found": {}})
        pair["found"].setdefault(each["species"], {})[each["metric"]] = each
    return list(pairs.values())


def verdict(record: dict[str, Any]) -> str:
    """Return one sentence per pair of models: for how many species F1 differs significantly, and which way."""
    sentences = []
    for pair in _pairs(record):
        found = [each["f1"]["significance"] for each in pair["found"].values()]
        known = [value for value in found if value is not None]
        higher, lower = (sum(sign * value >= SIGNIFICANT for value in known) for sign in (1, -1))
        alike = len(known) - higher - lower
        sentences.append(
            f"{pair['model']} against {pair['reference']}: F1 is higher for {higher}, lower for {lower} and not "
            f"significantly different for {alike} of {len(known)} species."
        )
    return " ".join(sentences)
