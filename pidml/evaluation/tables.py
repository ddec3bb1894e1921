"""The benchmark's numbers as plain data: ``metrics.json`` (nested) and ``metrics.csv`` (flat)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pidml import species
from pidml.evaluation.counts import CLASS_NAMES, PATTERNS, Outcome
from pidml.evaluation.intervals import INTERVAL_NAME
from pidml.evaluation.metrics import Interval, Performance, performance
from pidml.evaluation.paired import PairedCounts, differences, f1_ratio
from pidml.evaluation.results import Result, Sample
from pidml.tracks import PATTERN_NAMES

DENOMINATOR = (
    "efficiencies count reconstructed tracks that pass the selection; O2Physics counts generated physical primaries "
    "with |η| < 0.8, so its efficiencies include that of tracking"
)
#: Name of the selection of all tracks, whatever is missing.
ALL = "all"
SELECTIONS: dict[str, int | None] = {ALL: None} | {PATTERN_NAMES[pattern]: pattern for pattern in PATTERNS}
_METRICS = ("purity", "efficiency", "f1")
_FIGURES = (*(f"{name}{end}" for name in _METRICS for end in ("", "_low", "_high")), "auc")


def finite(value: float) -> float | None:
    """Return a float that JSON can hold: None for NaN or infinity."""
    return float(value) if math.isfinite(value) else None


def tree_of(flat: pd.DataFrame, value: Sequence[str], *keys: str) -> dict[str, Any]:
    """Return nested dictionaries by the columns ``keys`` with the columns ``value`` in the innermost."""
    tree: dict[str, Any] = {}
    for row in flat.to_dict("records"):
        place = tree
        for key in keys:
            place = place.setdefault(row[key], {})
        place |= {name: row[name] for name in value}
    return tree


def plain(value: Any) -> Any:
    """Return nested data with NumPy types turned into Python's and NaN or infinity into None."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    return finite(value) if isinstance(value, float) else value


def rows_of(result: Result) -> list[dict[str, Any]]:
    """Return one flat record per species, selection and bin of a method, the sum over all momenta first.

    ``pt_low`` and ``pt_high`` are None in the sums, which include tracks outside the bins. Undefined values are NaN,
    all figures of merit of a species that the method cannot identify among them.
    """
    rows = []
    for position, target in enumerate(species.TARGETS):
        for selection, pattern in SELECTIONS.items():
            head = {"method": result.method.name, "species": target.name, "selection": selection}
            total = result.counts.total(position, pattern)
            rows.append({**head, "pt_low": None, "pt_high": None, **_values(total, performance(total), 0)}
                        | {"auc": result.auc[pattern, None][position]})  # fmt: skip
            binned = result.counts.outcome(position, pattern)
            judged = performance(binned)
            for index in range(len(result.counts.edges) - 1):
                low, high = result.counts.edges[index : index + 2]
                rows.append({**head, "pt_low": low, "pt_high": high, **_values(binned, judged, index)}
                            | {"auc": result.auc[pattern, index][position]})  # fmt: skip
    undefined = dict.fromkeys(_FIGURES, math.nan)
    return [row | undefined if row["species"] in result.method.undefined else row for row in rows]


def _values(outcome: Outcome, judged: Performance, index: int) -> dict[str, Any]:
    tp, fp, fn, tn = (int(part[index]) for part in (outcome.tp, outcome.fp, outcome.fn, outcome.tn))
    values: dict[str, Any] = {"n": tp + fp + fn + tn, "signal": tp + fn, "selected": tp + fp, "true_positive": tp}
    for name in _METRICS:
        interval: Interval = getattr(judged, name)
        values[name] = float(interval.value[index])
        values[f"{name}_low"], values[f"{name}_high"] = float(interval.low[index]), float(interval.high[index])
    return values


def table(results: Sequence[Result]) -> pd.DataFrame:
    """Return the flat table of all methods."""
    return pd.DataFrame([row for result in results for row in rows_of(result)])


def nested(flat: pd.DataFrame) -> dict[str, Any]:
    """Return species → method → selection → {overall, bins} from the flat table."""
    tree: dict[str, Any] = {}
    keys = ("method", "species", "selection")
    for row in flat.to_dict("records"):
        values = {str(name): value for name, value in row.items() if name not in keys}
        place = tree.setdefault(row["species"], {}).setdefault(row["method"], {})
        place = place.setdefault(row["selection"], {"overall": None, "bins": []})
        if row["pt_low"] is None or math.isnan(row["pt_low"]):
            place["overall"] = {name: value for name, value in values.items() if not name.startswith("pt_")}
        else:
            place["bins"].append(values)
    return tree


def sample_record(sample: Sample) -> dict[str, Any]:
    """Return how many tracks of what kind metrics are counted on."""
    return {
        "split": "test",
        "tracks": len(sample.pdg),
        "species": {each.name: int(np.count_nonzero(sample.pdg == each.pdg)) for each in species.ALL},
        "patterns": {name: int(np.count_nonzero(sample.pattern == code)) for code, name in PATTERN_NAMES.items()},
    }


def method_record(result: Result) -> dict[str, Any]:
    """Return what characterises a method apart from its binned performance."""
    method = result.method
    names = species.TARGET_NAMES
    record: dict[str, Any] = {
        "label": method.label,
        "description": method.description,
        "undefined": dict(method.undefined),
        "thresholds": dict(zip(names, method.thresholds.tolist(), strict=True)) if method.probabilistic else None,
        "confusion": {"rows": CLASS_NAMES, "columns": names, "accepted": result.accepted, "highest": result.chosen},
    }
    if result.reliability is not None:
        record["calibration"] = {
            name: {
                "expected_calibration_error": result.reliability.expected_calibration_error(position),
                **result.reliability.diagram(position),
            }
            for position, name in enumerate(names)
        }
    return record


def fractions(paired: PairedCounts, seed: int) -> dict[str, Any]:
    """Return F1 of the first selection divided by F1 of the second, per species and bin, with bootstrap intervals.

    ``significance`` is by how many standard deviations of the bootstrap the first F1 is above the second.
    """
    result: dict[str, Any] = {}
    for position, name in enumerate(species.TARGET_NAMES):
        cells = paired.values[position]
        overall = f1_ratio(cells.sum(axis=0), seed)
        bins = [f1_ratio(cells[index], seed) for index in range(len(paired.edges) - 1)]
        above = differences(cells.sum(axis=0), seed)["f1"].significance
        result[name] = vars(overall) | {
            "significance": above,
            "bins": [
                {"pt_low": low, "pt_high": high, **vars(each)}
                for low, high, each in zip(paired.edges, paired.edges[1:], bins, strict=False)
            ],
        }
    return result


def metrics_record(
    sample: Sample, results: Sequence[Result], flat: pd.DataFrame, absent: dict[str, str]
) -> dict[str, Any]:
    """Return the content of ``metrics.json`` but for the fractions of the optimum and the list of plots.

    Args:
        sample: the tracks.
        results: of the methods.
        flat: what :func:`table` gives for ``results``.
        absent: method → why it could not be had.
    """
    return {
        "format": 1,
        "sample": sample_record(sample),
        "interval": INTERVAL_NAME,
        "denominator": DENOMINATOR,
        "pt_edges": list(results[0].counts.edges),
        "methods": {result.method.name: method_record(result) for result in results},
        "not_available": absent,
        "species": nested(flat),
    }
