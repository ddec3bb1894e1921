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

    def keep(subject: str, name: str | None, title: str, caption: str) -> Path:
        file = f"benchmark_{subject}_{name or EVERYONE}.png"
        made.append({"file": file, "title": title, "caption": caption, "subject": subject, "species": name})
        return out_dir / file

    interval = record["interval"]
    for position, target in enumerate(species.TARGETS):
        name = target.name
        path = keep("purity-efficiency", name, f"Purity, efficiency and F1 of the {name} selection",
                    f"Against transverse momentum. Bars: {interval}. Efficiency counts reconstructed, selected tracks.")  # fmt: skip
        performance.against_pt(record, target, path)
        path = keep("curve", name, f"All thresholds of the {name} selection",
                    "Left: part of the background accepted against efficiency. Right: purity against efficiency. "
                    "Markers: the thresholds in use.")  # fmt: skip
        performance.curves(results, record, target, position, path)
        path = keep("certainty", name, f"Certainty that a track is a {name}",
                    "Output of the network for tracks of the species and all others, each normalised to 1.")  # fmt: skip
        performance.certainty(results[0], target, position, path)
        path = keep("calibration", name, f"Calibration of the {name} certainty",
                    f"Part of the tracks that are of the species against mean certainty, in bins of certainty ({interval}).")  # fmt: skip
        performance.calibration(record, target, path)
    path = keep("summary", None, "F1 per species and fraction of the exact optimum",
                "All momenta and missing patterns together. Fraction of optimum: 68.27 % bootstrap interval.")  # fmt: skip
    comparison.summary(record, path)
    path = keep("missing-patterns", None, "F1 per missing pattern",
                f"Tracks grouped by the detectors that the network does not see. Bars: {interval}.")  # fmt: skip
    comparison.patterns(record, path)
    path = keep("confusion-thresholds", None, "Which species are accepted as which",
                "Percentage of each true species (row) accepted at each species' threshold (column). A track may be "
                "accepted as several species or none.")  # fmt: skip
    comparison.confusion(record, "accepted", path)
    path = keep("confusion-highest", None, "Which species has the highest certainty",
                "Percentage of each true species (row) by the species of highest certainty (column); rows add up to 100 %.")  # fmt: skip
    comparison.confusion(record, "highest", path)
    if record["fraction_of_optimum"]:
        path = keep("fraction-of-optimum", None, "Fraction of the exact optimum against transverse momentum",
                    "F1 of the network divided by F1 of the exact posterior. Bars: 68.27 % bootstrap interval.")  # fmt: skip
        comparison.fraction(record, path)
    return made
