"""Figures that show all species: summary, missing patterns, confusion, fraction of the optimum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch

from pidml import species
from pidml.plots import style
from pidml.plots.performance import look
from pidml.tracks import PATTERN_NAMES

_PATTERN_LABELS = {
    "all": "all",
    "complete": "complete",
    "no-tof": "no TOF",
    "no-trd": "no TRD",
    "no-trd-no-tof": "neither",
}
_ORDER = ("optimum", "network", "bayes", "nsigma")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _methods(record: dict[str, Any]) -> list[str]:
    return [name for name in _ORDER if name in record["methods"]]


def summary(record: dict[str, Any], path: Path) -> None:
    """Draw F1 of every method per species and, where the optimum is known, the network's fraction of it."""
    ratio = record["fraction_of_optimum"]
    methods = _methods(record)
    with style.canvas((8.0, 6.4 if ratio else 4.6)) as figure:
        rows = 2 if ratio else 1
        panels = figure.subplots(rows, 1, sharex=True, squeeze=False,
                                 gridspec_kw={"height_ratios": (2.2, 1)[:rows], "hspace": 0.07})[:, 0]  # fmt: skip
        figure.subplots_adjust(left=0.11, right=0.98, top=0.94, bottom=0.085 if ratio else 0.12)
        width = 0.8 / len(methods)
        for place, method in enumerate(methods):
            for x, target in enumerate(species.TARGETS):
                own = record["species"][target.name][method]["all"]["overall"]
                at = x + (place - (len(methods) - 1) / 2) * width
                _bar(panels[0], at, own, width, method, target, numbered=True)
        panels[0].set(ylim=(0, 1.22), xlim=(-0.55, 5.75), ylabel=f"{style.F1}, all tracks")
        panels[0].set_yticks(np.arange(0, 1.01, 0.2))
        _legend(panels[0], record, methods)
        if ratio:
            _ratios(panels[1], ratio)
        panels[-1].set_xticks(range(6), [f"{each.label} {each.name}" for each in species.TARGETS])
        for axes in panels:
            axes.tick_params(axis="x", which="both", length=0)
        style.label(panels[0], True, f"test sample, {style.tracks_text(record['sample']['tracks'])}")
        style.save(figure, path)


def _bar(
    axes: Any, at: float, own: dict[str, Any], width: float, method: str, target: species.Species, *, numbered: bool
) -> None:
    value, low, high = (_number(own[key]) for key in ("f1", "f1_low", "f1_high"))
    if np.isnan(value):
        axes.annotate("n/a", (at, 0), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8, rotation=90)
        return
    colour = style.colour(target)
    looks: dict[str, dict[str, Any]] = {
        "network": {"color": colour, "alpha": 0.9},
        "optimum": {"facecolor": "white", "edgecolor": style.INK, "linewidth": 1.1},
        "bayes": {"color": style.BAYES},
        "nsigma": {"color": "#BDBDBD"},
    }
    axes.bar(at, value, width * 0.9, **looks[method])
    axes.errorbar(at, value, [[max(value - low, 0)], [max(high - value, 0)]], color=style.INK, linewidth=1, capsize=0)
    if numbered:
        axes.annotate(f"{value:.3f}", (at, max(value, high)), xytext=(0, 3), textcoords="offset points", ha="center",
                      fontsize=8.5, rotation=90, va="bottom")  # fmt: skip


def _legend(place: Any, record: dict[str, Any], methods: list[str], **where: Any) -> None:
    looks: dict[str, dict[str, Any]] = {
        "optimum": {"facecolor": "white", "edgecolor": style.INK},
        "bayes": {"facecolor": style.BAYES},
        "nsigma": {"facecolor": "#BDBDBD"},
    }
    of_species = tuple(Patch(facecolor=style.colour(each)) for each in species.TARGETS[:3])
    handles = [of_species if name == "network" else Patch(**looks[name]) for name in methods]
    labels = [record["methods"][name]["label"] for name in methods]
    where = {"loc": "upper center", "ncols": 4} | where
    place.legend(handles, labels, handler_map={tuple: HandlerTuple(ndivide=None, pad=0)}, handlelength=2.2, **where)


def _ratios(axes: Any, ratio: dict[str, Any]) -> None:
    lowest = 1.0
    for x, target in enumerate(species.TARGETS):
        own = ratio[target.name]
        value, low, high = (_number(own[key]) for key in ("value", "low", "high"))
        if np.isnan(value):
            continue
        lowest = min(lowest, low)
        axes.errorbar(x, value, [[max(value - low, 0)], [max(high - value, 0)]], fmt="o", color=style.colour(target),
                      markersize=6, linewidth=1.4)  # fmt: skip
        axes.annotate(
            f"{100 * value:.2f} %", (x, value), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip
    axes.axhline(1.0, color=style.INK, linewidth=1)
    axes.axhline(0.99, color=style.GREY, linewidth=1, linestyle=":")
    margin = max(1.0 - lowest, 0.012)
    axes.set(ylim=(1 - 1.25 * margin, 1 + 0.35 * margin), ylabel="network / optimum")


def patterns(record: dict[str, Any], path: Path) -> None:
    """Draw F1 per missing pattern and method, one panel per species."""
    methods, names = _methods(record), list(_PATTERN_LABELS)
    with style.canvas((11.0, 6.4)) as figure:
        grid = figure.subplots(2, 3, sharex=True, sharey=True, gridspec_kw={"hspace": 0.08, "wspace": 0.04})
        figure.subplots_adjust(left=0.06, right=0.99, top=0.89, bottom=0.055)
        width = 0.8 / len(methods)
        for axes, target in zip(grid.ravel(), species.TARGETS, strict=True):
            for place, method in enumerate(methods):
                for x, name in enumerate(names):
                    own = record["species"][target.name][method][name]["overall"]
                    _bar(axes, x + (place - (len(methods) - 1) / 2) * width, own, width, method, target, numbered=False)
            axes.text(0.03, 0.93, f"{target.label}  {target.name}", transform=axes.transAxes, va="top", fontsize=12)
            axes.set_xticks(range(len(names)), [_PATTERN_LABELS[name] for name in names])
            axes.set(ylim=(0, 1.2), yticks=np.arange(0, 1.01, 0.2))
            axes.tick_params(axis="x", which="both", length=0)
            axes.axvline(0.5, color="#CCCCCC", linewidth=0.8)
        for axes in grid[:, 0]:
            axes.set_ylabel(style.F1)
        _legend(figure, record, methods, bbox_to_anchor=(0.5, 1.0))
        shares = record["sample"]["patterns"]
        total = max(sum(shares.values()), 1)
        text = ", ".join(
            f"{_PATTERN_LABELS[name]} {100 * shares[name] / total:.1f} %" for name in PATTERN_NAMES.values()
        )
        style.label(grid[0, 0], True)
        grid[0, 2].text(1, 1.015, f"test sample: {text}", transform=grid[0, 2].transAxes, ha="right", va="bottom",
                        fontsize=9.5, color=style.GREY)  # fmt: skip
        style.save(figure, path)


def confusion(record: dict[str, Any], which: str, path: Path) -> None:
    """Draw a confusion matrix in per cent of each true species; rows without tracks are left out.

    Args:
        record: the content of ``metrics.json``.
        path: where the PNG goes.
        which: ``accepted`` (at each species' threshold) or ``highest`` (species of highest certainty).
    """
    own = record["methods"]["network"]["confusion"]
    counts = np.array(own[which], np.float64)
    truth = {name: record["sample"]["species"][name] for name in own["rows"] if name != "other"}
    totals = np.array([*truth.values(), record["sample"]["tracks"] - sum(truth.values())], np.float64)
    there = np.flatnonzero(totals > 0)
    share = counts[there] / totals[there, None]
    rows = [*(f"{each.label} {each.name}" for each in species.ALL), "other"]
    with style.canvas((7.4, 0.52 * len(there) + 1.7)) as figure:
        axes = figure.subplots()
        height = 0.52 * len(there) + 1.7
        figure.subplots_adjust(left=0.245, right=0.985, top=1 - 0.4 / height, bottom=0.85 / height)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(share):
            axes.text(column, row, f"{100 * value:.1f}" if value >= 0.0005 else ("<0.1" if value else "0"),
                      ha="center", va="center", fontsize=10.5,
                      color="white" if value > 0.55 else style.INK)  # fmt: skip
        axes.set_xticks(range(6), [each.label for each in species.TARGETS], fontsize=14)
        axes.set_yticks(range(len(there)), [f"{rows[index]} ({int(totals[index]):,})" for index in there], fontsize=10)
        axes.tick_params(which="both", length=0)
        axes.set_xlabel("accepted as" if which == "accepted" else "highest certainty")
        for edge in np.arange(0.5, len(there) - 1):
            axes.axhline(edge, color="white", linewidth=1)
        for edge in np.arange(0.5, 5):
            axes.axvline(edge, color="white", linewidth=1)
        style.label(axes, True, "per cent of each true species, test sample")
        style.save(figure, path)


def fraction(record: dict[str, Any], path: Path) -> None:
    """Draw the network's fraction of the optimum's F1 against transverse momentum, both charges apart."""
    edges = np.array(record["pt_edges"])
    centre, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    with style.canvas((7.4, 6.4)) as figure:
        panels = figure.subplots(2, 1, sharex=True, sharey=True, gridspec_kw={"hspace": 0.06})
        figure.subplots_adjust(top=0.94, bottom=0.095)
        lowest, highest = 0.98, 1.01
        for axes, group in zip(panels, (species.TARGETS[:3], species.TARGETS[3:]), strict=True):
            for shift, target in zip((-0.25, 0.0, 0.25), group, strict=True):
                bins = record["fraction_of_optimum"][target.name]["bins"]
                value, low, high = (np.array([_number(b[key]) for b in bins]) for key in ("value", "low", "high"))
                there = np.isfinite(value)
                # The axis is made for bins that are known well; the error bars of others may leave it.
                known = there & (high - low < 0.2)
                if known.any():
                    lowest = min(lowest, float(low[known].min()))
                    highest = max(highest, float(high[known].max()))
                errors = np.clip([(value - low)[there], (high - value)[there]], 0, None)
                axes.errorbar(
                    (centre + shift * half)[there], value[there], errors, linestyle="none", linewidth=1.1,
                    label=f"{target.label} {target.name}", **look("network", target) | {"markerfacecolor": "white" if
                    target.pdg < 0 else style.colour(target)},
                )  # fmt: skip
            axes.axhline(1.0, color=style.INK, linewidth=1)
            axes.set_ylabel(f"{style.F1}: network / optimum")
            axes.legend(loc="lower left", ncols=3)
        room = 0.15 * (highest - lowest)
        panels[0].set(ylim=(max(lowest - 2 * room, 0), highest + room), xlim=(edges[0], edges[-1]))
        panels[1].set_xlabel(style.PT)
        style.label(panels[0], True, f"test sample, {style.tracks_text(record['sample']['tracks'])}")
        style.save(figure, path)
