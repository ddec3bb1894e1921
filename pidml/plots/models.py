"""Figures that compare models: one colour per model, on the same test tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from pidml import species
from pidml.plots import style

if TYPE_CHECKING:
    from pidml.evaluation.results import Result

Real = NDArray[np.float64]
EVERYONE = "all-species"
#: Colour (Okabe and Ito) and marker of each model.
_LOOKS = (
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"),
    ("#7F7F7F", "X"), ("#1A1A1A", "*"),
)  # fmt: skip
MAX_MODELS = len(_LOOKS)
_METRICS = {"purity": "purity", "efficiency": "efficiency", "f1": style.F1}
_TEXTS = {
    "summary": (
        "F1 per species",
        (
            "All momenta and missing patterns together. Lower panel: F1 minus that of the first model, with 68.27 % "
            "intervals of the paired bootstrap."
        ),
    ),
    "cost": (
        "Quality against cost",
        "Mean F1 of the six species against the time to evaluate one track for all species through onnxruntime.",
    ),
    "against-pt": (
        "Purity, efficiency and F1 of the {name} selection",
        "Against transverse momentum. Bars: {interval}. Efficiency counts reconstructed, selected tracks.",
    ),
    "curves": (
        "All thresholds of the {name} selection",
        (
            "Left: part of the background accepted against efficiency. Right: purity against efficiency. Markers: the "
            "thresholds in use."
        ),
    ),
    "calibration": (
        "Calibration of the {name} certainty",
        "Part of the tracks that are of the species minus mean certainty, in bins of certainty. Bars: {interval}.",
    ),
}


def draw_all(results: Sequence[Result], record: dict[str, Any], out_dir: Path) -> list[dict[str, Any]]:
    """Draw every figure.

    Args:
        results: one per model, of the same tracks; at most :data:`MAX_MODELS`.
        record: the content of ``comparison.json`` but for the plots.
        out_dir: where the PNG files go, named ``compare_<subject>_<species>.png``.

    Returns:
        One record per figure: ``file``, ``title``, ``caption``, ``subject`` and ``species`` (None if it shows all).
    """
    made: list[dict[str, Any]] = []

    def keep(subject: str, name: str | None = None) -> Path:
        title, caption = _TEXTS[subject]
        file = f"compare_{subject}_{name or EVERYONE}.png"
        caption = caption.format(interval=record["interval"])
        made.append(
            {"file": file, "title": title.format(name=name), "caption": caption, "subject": subject, "species": name}
        )
        return out_dir / file

    summary(record, keep("summary"))
    cost(record, keep("cost"))
    for position, target in enumerate(species.TARGETS):
        against_pt(record, target, keep("against-pt", target.name))
        curves(results, record, target, position, keep("curves", target.name))
        calibration(results, target, position, keep("calibration", target.name))
    return made


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _shifts(count: int, width: float) -> Real:
    """Return where the points of each model stand beside each other, around 0."""
    return np.asarray((np.arange(count) - (count - 1) / 2) * width / max(count, 1), np.float64)


def _names(record: dict[str, Any]) -> list[str]:
    return [each["name"] for each in record["models"]]


def summary(record: dict[str, Any], path: Path) -> None:
    """Draw F1 of every model per species, and its difference to the first model's."""
    names = _names(record)
    found = {(d["model"], d["species"]): d for d in record["differences"]
             if d["metric"] == "f1" and d["reference"] == names[0]}  # fmt: skip
    with style.canvas((8.4, 6.6)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1.5, 1), "hspace": 0.07})
        figure.subplots_adjust(left=0.125, right=0.98, top=0.94, bottom=0.075)
        for shift, name, (colour, marker) in zip(_shifts(len(names), 0.8), names, _LOOKS, strict=False):
            look = {"color": colour, "marker": marker, "linestyle": "none", "linewidth": 1.3, "markersize": 6}
            own = [record["species"][each.name][name]["all"]["overall"] for each in species.TARGETS]
            _points(upper, np.arange(6) + shift, own, "f1", look | {"label": name})
            if name != names[0]:
                _points(lower, np.arange(6) + shift, [found[name, t.name] for t in species.TARGETS], "", look)
        lower.axhline(0, color=_LOOKS[0][0], linewidth=1.2)
        upper.set_ylabel(f"{style.F1}, all tracks")
        lower.set_ylabel(f"{style.F1} minus that\nof {names[0]}")
        upper.margins(y=0.25)
        upper.legend(loc="upper center", ncols=min(len(names), 4))
        lower.set_xticks(range(6), [f"{each.label} {each.name}" for each in species.TARGETS])
        lower.set_xlim(-0.55, 5.55)
        for axes in (upper, lower):
            axes.tick_params(axis="x", which="both", length=0)
            axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            for edge in np.arange(0.5, 5):
                axes.axvline(edge, color="#DDDDDD", linewidth=0.8)
        style.label(upper, True, f"test sample, {style.tracks_text(record['sample']['tracks'])}")
        style.save(figure, path)


def _points(axes: Axes, x: Real, records: Sequence[dict[str, Any]], key: str, look: dict[str, Any],
            half: Real | None = None) -> None:  # fmt: skip
    """Draw values with the limits of their intervals; ``key`` is what the names of the limits begin with, if any."""
    value, low, high = (
        np.array([_number(each[name]) for each in records])
        for name in ((key, f"{key}_low", f"{key}_high") if key else ("value", "low", "high"))
    )
    there = np.isfinite(value)
    errors = np.clip([(value - low)[there], (high - value)[there]], 0, None)
    axes.errorbar(x[there], value[there], errors, None if half is None else half[there], **look)


def cost(record: dict[str, Any], path: Path) -> None:
    """Draw the mean F1 of each model against the time that one track takes."""
    with style.canvas((7.0, 4.6)) as figure:
        axes = figure.subplots()
        for model, (colour, marker) in zip(record["models"], _LOOKS, strict=False):
            own = [record["species"][each.name][model["name"]]["all"]["overall"]["f1"] for each in species.TARGETS]
            known = [value for value in own if value is not None]
            if known:
                text = f"{model['name']}, {model['cost']['parameters']:,} parameters"
                axes.plot([model["cost"]["single_us"]], [sum(known) / len(known)], color=colour, marker=marker,
                          markersize=10, linestyle="none", label=text)  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.3, 0.5)
        axes.set(xlabel="time for one track, all species (µs)", ylabel=f"mean {style.F1}")
        axes.legend(loc="upper left")
        style.label(axes, True, "test sample")
        style.save(figure, path)


def against_pt(record: dict[str, Any], particle: species.Species, path: Path) -> None:
    """Draw purity, efficiency and F1 against transverse momentum, every model in each panel."""
    own, edges, names = record["species"][particle.name], np.array(record["pt_edges"]), _names(record)
    centre, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    with style.canvas((7.0, 8.4)) as figure:
        panels = figure.subplots(3, 1, sharex=True, gridspec_kw={"hspace": 0.07})
        figure.subplots_adjust(top=0.95, bottom=0.075, left=0.115)
        for axes, (metric, text) in zip(panels, _METRICS.items(), strict=True):
            for shift, name, (colour, marker) in zip(_shifts(len(names), 1.0), names, _LOOKS, strict=False):
                look = {"color": colour, "marker": marker, "linestyle": "none", "linewidth": 1.1, "label": name}
                _points(axes, centre + shift * half, own[name]["all"]["bins"], metric, look)
            axes.set(ylim=(0.0, 1.08), xlim=(edges[0], edges[-1]), ylabel=text)
            axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        panels[1].text(0.015, 0.05, style.DENOMINATOR, transform=panels[1].transAxes, fontsize=9.5, color=style.GREY)
        panels[2].legend(loc="lower center", ncols=min(len(names), 3), title=f"{particle.label}  ({particle.name})",
                         title_fontsize=12, alignment="left")  # fmt: skip
        panels[-1].set_xlabel(style.PT)
        style.label(panels[0], True, f"test sample, {style.tracks_text(record['sample']['tracks'])}")
        style.save(figure, path)


def curves(results: Sequence[Result], record: dict[str, Any], particle: species.Species, position: int,
           path: Path) -> None:  # fmt: skip
    """Draw what every threshold of each model gives, with the thresholds in use."""
    with style.canvas((10.0, 4.9)) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.22})
        figure.subplots_adjust(left=0.075, right=0.98, bottom=0.125)
        for result, (colour, marker) in zip(results, _LOOKS, strict=False):
            full = result.curves[position]
            overall = record["species"][particle.name][result.method.name]["all"]["overall"]
            text = result.method.label
            if overall["auc"] is not None:
                text += f"  (AUC {overall['auc']:.4f})"
            left.plot(full.efficiency, full.false_positive_rate, color=colour, label=text)
            right.plot(full.efficiency, full.purity, color=colour)
            if None not in (overall["efficiency"], overall["purity"]):
                right.plot([overall["efficiency"]], [overall["purity"]], color=colour, marker=marker, markersize=7)
        left.set(yscale="log", ylim=(2e-6, 1.5), xlim=(0, 1.02), xlabel="efficiency",
                 ylabel="fraction of background accepted")  # fmt: skip
        right.set(ylim=(0, 1.04), xlim=(0, 1.02), xlabel="efficiency", ylabel="purity")
        left.legend(loc="upper left", title=f"{particle.label}  ({particle.name})", title_fontsize=12, alignment="left")
        right.text(0.03, 0.04, style.DENOMINATOR, transform=right.transAxes, fontsize=9.5, color=style.GREY)
        style.label(left, True)
        style.label(right, True, f"test sample, {style.tracks_text(record['sample']['tracks'])}")
        style.save(figure, path)


def calibration(results: Sequence[Result], particle: species.Species, position: int, path: Path) -> None:
    """Draw how far the part of tracks that are of the species is from the certainty, for each model."""
    with style.canvas((7.0, 4.4)) as figure:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.14, bottom=0.14)
        reach = 0.02
        for shift, result, (colour, marker) in zip(_shifts(len(results), 0.03), results, _LOOKS, strict=False):
            assert result.reliability is not None
            own = result.reliability.diagram(position)
            there = own["n"] > 0
            gap = (own["fraction"] - own["certainty"])[there]
            errors = np.clip([(own["fraction"] - own["low"])[there], (own["high"] - own["fraction"])[there]], 0, None)
            axes.errorbar((own["certainty"] + shift)[there], gap, errors, color=colour, marker=marker, linewidth=1.1,
                          linestyle="none", label=result.method.label)  # fmt: skip
            known = errors.max(axis=0) < 0.1  # bins with few tracks may leave the axis
            reach = max(reach, float(np.abs(gap[known]).max(initial=0.0)) * 1.3)
        axes.axhline(0, color=style.INK, linestyle=":", linewidth=1.2)
        axes.set(xlim=(0, 1), ylim=(-reach, 1.6 * reach), xlabel="certainty", ylabel="fraction of species − certainty")
        axes.legend(loc="upper left", ncols=min(len(results), 3), title=f"{particle.label}  ({particle.name})",
                    title_fontsize=12, alignment="left")  # fmt: skip
        style.label(axes, True, "test sample")
        style.save(figure, path)
