"""Thresholds given by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pidml.errors import SpecError


def parse_thresholds(given: Sequence[str]) -> dict[str, float]:
    """Return the thresholds that options stand for.

    >>> parse_thresholds(["kaon=0.9", "pion=0.25"])
    {'kaon': 0.9, 'pion': 0.25}

    Raises:
        SpecError: one is not a name, an equals sign and a number.
    """
    found = {}
    for each in given:
        name, _, value = each.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise SpecError(f"threshold {each!r}: not SPECIES=CERTAINTY", "for example: kaon=0.9") from None
    return found


def replaced(thresholds: Mapping[str, float], changes: Mapping[str, float]) -> dict[str, float]:
    """Return thresholds of which some are replaced.

    Args:
        thresholds: species → certainty from which a track is accepted.
        changes: likewise, for some of these species.

    Raises:
        SpecError: there is no such species, or the value is no certainty.
    """
    for name, value in changes.items():
        if name not in thresholds:
            raise SpecError(f"threshold of {name!r}: no such species", f"allowed: {', '.join(thresholds)}")
        if not 0 <= value <= 1:
            raise SpecError(f"threshold of {name} is {value}", "a certainty lies between 0 and 1")
    return {**thresholds, **changes}


def spans(thresholds: Mapping[str, float], table: Mapping[str, Any] | None) -> dict[str, tuple[float, float]]:
    """Return, per species, the lowest and highest threshold that may be applied: those of all bins, and outside.

    >>> spans({"kaon": 0.5}, {"pt_edges": [0, 1, 2], "thresholds": {"kaon": [0.7, 0.4]}})
    {'kaon': (0.4, 0.7)}

    Args:
        thresholds: species → overall threshold.
        table: the content of ``thresholds_pt.json``, or None.
    """
    bins: Mapping[str, Sequence[float]] = {} if table is None else table["thresholds"]
    used = {name: [each, *bins.get(name, ())] for name, each in outside_bins(thresholds, table).items()}
    return {name: (min(values), max(values)) for name, values in used.items()}


def outside_bins(thresholds: Mapping[str, float], table: Mapping[str, Any] | None) -> Mapping[str, float]:
    """Return the thresholds of tracks outside the bins; the overall ones without bins, and in older bundles.

    >>> outside_bins({"kaon": 0.5}, {"pt_edges": [0, 1], "thresholds": {"kaon": [0.7]}, "outside": {"kaon": 0.6}})
    {'kaon': 0.6}

    Args:
        thresholds: species → overall threshold.
        table: the content of ``thresholds_pt.json``, or None.
    """
    found: Mapping[str, float] = thresholds if table is None else table.get("outside", thresholds)
    return found


def replaced_per_pt(table: Mapping[str, Any] | None, changes: Mapping[str, float]) -> dict[str, Any] | None:
    """Return the content of ``thresholds_pt.json`` with thresholds by hand, at every momentum."""
    if table is None:
        return None
    own = {name: [changes.get(name, each) for each in values] for name, values in table["thresholds"].items()}
    outside = {name: changes.get(name, each) for name, each in table.get("outside", {}).items()}
    return {**table, "thresholds": own} | ({"outside": outside} if outside else {})
