"""Figures about the selection of one species: against momentum, at every threshold, certainty, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pidml.plots import style
from pidml.species import Species

if TYPE_CHECKING:
    from pidml.evaluation.results import Result

Real = NDArray[np.float64]
_TITLES = {"purity": "purity", "efficiency": "efficiency", "f1": style.F1}


def look(method: str, particle: Species) -> dict[str, Any]:
    """Return colour and marker of a method in a plot about one species."""
    return {
        "network": {"color": style.colour(particle), "marker": "o"},
        "nsigma": {"color": style.GREY, "marker": "s", "markerfacecolor": "white"},
        "bayes": {"color": style.BAYES, "marker": "^", "markerfacecolor": "white"},
        "optimum": {"color": style.INK, "marker": ""},
    }[method]


def _array(bins: Sequence[dict[str, Any]], key: str) -> Real:
    return np.array([np.nan if each[key] is None else each[key] for each in bins], np.float64)


def against_pt(record: dict[str, Any], particle: Species, path: Path) -> None:
    """Draw purity, efficiency and F1 against transverse momentum, every method in each panel."""
    own, edges = record["species"][particle.name], np.array(record["pt_edges"])
    with style.canvas((7.0, 8.4)) as figure:
        panels = figure.subplots(3, 1, sharex=True, gridspec_kw={"hspace": 0.07})
        figure.subplots_adjust(top=0.95, bottom=0.075, left=0.115)
        for axes, metric in zip(panels, _TITLES, strict=True):
            for name in _defined(record, particle, own):
                _points(axes, edges, own[name]["all"]["bins"], metric, name, particle, record["methods"][name]["label"])
            axes.set_ylim(0.0, 1.08)
            axes.set_xlim(edges[0], edges[-1])
            axes.set_ylabel(_TITLES[metric])
            axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        panels[1].text(0.015, 0.05, style.DENOMINATOR, transform=panels[1].transAxes, fontsize=9.5, color=style.GREY)
        handles, labels = panels[0].get_legend_handles_labels()
        panels[2].legend(
            handles[::-1], labels[::-1], loc="lower center", ncols=2, title=f"{particle.label}  ({particle.name})",
            title_fontsize=12,
            alignment="left",
        )  # fmt: skip
        panels[-1].set_xlabel(style.PT)
        style.label(panels[0], True, f"test sample, {style.tracks_text(record['sample']['tracks'])}")
        style.save(figure, path)


def _defined(record: dict[str, Any], particle: Species, names: Iterable[str]) -> list[str]:
    """Return the methods that can identify a species, the network last, which is drawn above the others."""
    there = [name for name in names if particle.name not in record["methods"][name]["undefined"]]
    return sorted(there, key=lambda each: each == "network")


def _points(
    axes: Axes, edges: Real, bins: Sequence[dict[str, Any]], metric: str, method: str, particle: Species, text: str
) -> None:
    value, low, high = (_array(bins, key) for key in (metric, f"{metric}_low", f"{metric}_high"))
    if method == "optimum":
        axes.stairs(value, edges, color=style.INK, linewidth=1.3, label=text, baseline=None)
        axes.bar(
            edges[:-1],
            high - low,
            np.diff(edges),
            low,
            align="edge",
            color=style.INK,
            alpha=0.13,
            linewidth=0,
            zorder=0,
        )
        return
    there = ~np.isnan(value)
    errors = np.clip([(value - low)[there], (high - value)[there]], 0, None)
    axes.errorbar(
        ((edges[1:] + edges[:-1]) / 2)[there], value[there], errors, (np.diff(edges) / 2)[there],
        linestyle="none", linewidth=1.2, label=text, **look(method, particle),
    )  # fmt: skip


def curves(results: Sequence[Result], record: dict[str, Any], particle: Species, position: int, path: Path) -> None:
    """Draw what every threshold gives: the ROC curve and purity against efficiency, with the working points."""
    own = record["species"][particle.name]
    with style.canvas((10.0, 4.9)) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.22})
        figure.subplots_adjust(left=0.075, right=0.98, bottom=0.125)
        by_name = {result.method.name: result for result in results}
        for result in (by_name[name] for name in _defined(record, particle, by_name)):
            name, full = result.method.name, result.curves[position]
            overall, looks = own[name]["all"]["overall"], look(name, particle)
            text = result.method.label if name != "nsigma" else r"$n\sigma$, any $n$"
            if overall["auc"] is not None:
                text += f"  (AUC {overall['auc']:.4f})"
            line = {"color": looks["color"], "linestyle": "--" if name == "optimum" else "-", "label": text}
            left.plot(full.efficiency, full.false_positive_rate, **line)
            right.plot(full.efficiency, full.purity, **line)
            _working_point(left, right, overall, looks, name)
        left.set(
            yscale="log",
            ylim=(2e-6, 1.5),
            xlim=(0, 1.02),
            xlabel="efficiency",
            ylabel="fraction of background accepted",
        )
        right.set(ylim=(0, 1.04), xlim=(0, 1.02), xlabel="efficiency", ylabel="purity")
        handles, labels = left.get_legend_handles_labels()
        left.legend(handles[::-1], labels[::-1], loc="upper left", title=f"{particle.label}  ({particle.name})",
                    title_fontsize=12, alignment="left")  # fmt: skip
        right.text(0.03, 0.04, style.DENOMINATOR, transform=right.transAxes, fontsize=9.5, color=style.GREY)
        style.label(left, True)
        style.label(right, True, f"test sample, {style.tracks_text(record['sample']['tracks'])}")
        style.save(figure, path)


def _working_point(left: Axes, right: Axes, overall: dict[str, Any], looks: dict[str, Any], name: str) -> None:
    efficiency, purity = overall["efficiency"], overall["purity"]
    if efficiency is None or purity is None:
        return
    background = overall["n"] - overall["signal"]
    accepted = overall["selected"] - overall["true_positive"]
    mark = {"marker": "D" if name == "optimum" else looks["marker"], "color": looks["color"], "markersize": 7,
            "markerfacecolor": looks["color"] if name == "network" else "white", "linestyle": "none"}  # fmt: skip
    right.plot([efficiency], [purity], **mark)
    if background and accepted:
        left.plot([efficiency], [accepted / background], **mark)


def certainty(result: Result, particle: Species, position: int, path: Path) -> None:
    """Draw the distribution of the network's certainty for the species and for all other tracks."""
    assert result.reliability is not None
    background, signal = result.reliability.counts[position].reshape(2, -1, 2).sum(axis=2).astype(np.float64)
    edges = np.linspace(0, 1, len(signal) + 1)
    threshold = result.method.thresholds[position]
    with style.canvas() as figure:
        axes = figure.subplots()
        for values, colour, fill, text in (
            (background, style.GREY, False, "other tracks"),
            (signal, style.colour(particle), True, f"{particle.label}  ({particle.name})"),
        ):
            total = values.sum()
            shown = values / total if total else values
            axes.stairs(shown, edges, color=colour, fill=fill, alpha=0.35 if fill else 1, linewidth=1.4)
            axes.stairs(shown, edges, color=colour, linewidth=1.4, label=f"{text}, {int(total):,}")
        least = min(1 / max(background.sum(), 1), 1 / max(signal.sum(), 1))
        axes.set(yscale="log", ylim=(least / 2, 20), xlim=(0, 1))
        axes.set_xlabel("certainty")
        axes.set_ylabel("fraction of tracks per 0.02")
        if np.isfinite(threshold):
            left = threshold < 0.7
            axes.axvline(threshold, ymax=0.86, color=style.INK, linestyle=":", linewidth=1.4)
            axes.annotate(
                f"threshold {threshold:.3f}", (threshold, 0.83), xycoords=("data", "axes fraction"),
                xytext=(5 if left else -5, 0), textcoords="offset points", fontsize=10, ha="left" if left else "right",
            )  # fmt: skip
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="upper center", ncols=2)
        style.label(axes, True, "test sample")
        style.save(figure, path)


def calibration(record: dict[str, Any], particle: Species, path: Path) -> None:
    """Draw the reliability diagram with the number of tracks per bin below."""
    own = record["methods"]["network"]["calibration"][particle.name]
    x, y, low, high, n = (np.array([np.nan if v is None else v for v in own[key]], np.float64)
                          for key in ("certainty", "fraction", "low", "high", "n"))  # fmt: skip
    there = n > 0
    with style.canvas((6.2, 6.6)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1), "hspace": 0.06})
        figure.subplots_adjust(top=0.94, bottom=0.095, left=0.14)
        upper.plot([0, 1], [0, 1], color=style.INK, linestyle=":", linewidth=1.2, label="perfect calibration")
        errors = np.clip([(y - low)[there], (high - y)[there]], 0, None)
        upper.errorbar(x[there], y[there], errors, fmt="o", color=style.colour(particle), linewidth=1.2,
                       label=f"network, {particle.label}  ({particle.name})")  # fmt: skip
        upper.set(xlim=(0, 1), ylim=(-0.02, 1.04), ylabel="fraction that are of the species")
        error = own["expected_calibration_error"]
        if error is not None:
            upper.text(0.97, 0.05, f"expected calibration error  {error:.2g}", transform=upper.transAxes, ha="right",
                       fontsize=10.5)  # fmt: skip
        upper.legend(loc="upper left")
        lower.stairs(
            np.where(there, n, np.nan),
            np.linspace(0, 1, len(n) + 1),
            color=style.colour(particle),
            fill=True,
            alpha=0.5,
        )
        lower.set(yscale="log", xlabel="certainty", ylabel="tracks", ylim=(0.7, max(float(n.max()), 1) * 4))
        style.label(upper, True, "test sample")
        style.save(figure, path)
