"""All figures of the benchmark, with a title and a caption each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pidml import species
from pidml.plots import comparison, performance

if TYPE_CHECKING:
    from pidml.evaluation.results import Result

#: Stands in the names of files that show all species.
EVERYONE = "all-species"
_BOOTSTRAP = "Bars: 68.27 % bootstrap interval."
#: Subject → title and caption of the figures made for each species.
_PER_SPECIES = {
    "purity-efficiency": (
        "Purity, efficiency and F1 of the {name} selection",
        "Against transverse momentum. Bars: {interval}. Efficiency counts reconstructed, selected tracks.",
    ),
    "curve": (
        "All thresholds of the {name} selection",
        (
            "Left: part of the background accepted against efficiency. Right: purity against efficiency. Markers: the "
            "thresholds in use."
        ),
    ),
    "certainty": (
        "Certainty that a track is a {name}",
        "Output of the network for tracks of the species and for all others, each normalised to 1.",
    ),
    "calibration": (
        "Calibration of the {name} certainty",
        "Part of the tracks that are of the species against mean certainty, in bins of certainty. Bars: {interval}.",
    ),
}
#: Subject → title and caption of the figures that show all species.
_TOGETHER = {
    "summary": ("F1 per species", "All momenta and missing patterns together. Lower panel, where there is one: "
                "fraction of the exact optimum's F1. " + _BOOTSTRAP),
    "missing-patterns": (
        "F1 per missing pattern",
        "Tracks grouped by the detectors that the network does not see. Bars: {interval}.",
    ),
    "confusion-thresholds": (
        "Which species are accepted as which",
        (
            "Percentage of each true species (row) accepted at each species' threshold (column). A track may be "
            "accepted as several species or none."
        ),
    ),
    "confusion-highest": (
        "Which species has the highest certainty",
        "Percentage of each true species (row) by the species of highest certainty (column); rows add up to 100 %.",
    ),
    "fraction-of-optimum": (
        "Fraction of the exact optimum against transverse momentum",
        "F1 of the network divided by F1 of the exact posterior. " + _BOOTSTRAP,
    ),
}  # fmt: skip


def draw_all(results: Sequence[Result], record: dict[str, Any], out_dir: Path) -> list[dict[str, Any]]:
    """Draw every figure of the benchmark.

    Args:
        results: of the methods, the network first.
        record: the content of ``metrics.json`` but for the plots.
        out_dir: where the PNG files go, named ``benchmark_<subject>_<species>.png``.

    Returns:
        One record per figure: ``file``, ``title``, ``caption``, ``subject`` and ``species`` (None if it shows all).
    """
    made: list[dict[str, Any]] = []

    def keep(subject: str, name: str | None = None) -> Path:
        title, caption = (_TOGETHER if name is None else _PER_SPECIES)[subject]
        file = f"benchmark_{subject}_{name or EVERYONE}.png"
        made.append(
            {
                "file": file,
                "title": title.format(name=name),
                "caption": caption.format(interval=record["interval"]),
                "subject": subject,
                "species": name,
            }
        )
        return out_dir / file

    for position, target in enumerate(species.TARGETS):
        performance.against_pt(record, target, keep("purity-efficiency", target.name))
        performance.curves(results, record, target, position, keep("curve", target.name))
        performance.certainty(results[0], target, position, keep("certainty", target.name))
        performance.calibration(record, target, keep("calibration", target.name))
    comparison.summary(record, keep("summary"))
    if record["fraction_of_optimum"]:
        comparison.fraction(record, keep("fraction-of-optimum"))
    comparison.patterns(record, keep("missing-patterns"))
    comparison.confusion(record, "accepted", keep("confusion-thresholds"))
    comparison.confusion(record, "highest", keep("confusion-highest"))
    return made
