"""Figure of a job's replicas: every training's figures of merit, with mean and standard deviation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from pidml import species
from pidml.plots import style

FILE = "spread_all-species.png"
#: What is varied and sample → text, marker, whether it is filled.
_GROUPS: dict[tuple[str, str], tuple[str, str, bool]] = {
    ("seeds", "test"): ("{} seeds", "o", True),
    ("folds", "test"): ("without one of {} folds", "s", False),
    ("folds", "held-out"): ("the same, judged on that fold", "^", False),
}
_PANELS = {"f1": style.F1, "purity": "purity", "efficiency": "efficiency", "auc": "AUC"}


def draw(record: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Draw all replicas as differences from the mean of the seeds (of the folds, where only these were varied).

    Args:
        record: the content of ``spread.json`` but for the plots.
        out_dir: where the PNG file goes.

    Returns:
        ``file``, ``title``, ``caption``, ``subject`` and ``species`` (None) of the figure.
    """
    there = [key for key in _GROUPS if key[1] in record["spread"].get(key[0], {})]
    with style.canvas((11.0, 7.0)) as figure:
        panels = figure.subplots(2, 2, sharex=True, gridspec_kw={"hspace": 0.1, "wspace": 0.19})
        figure.subplots_adjust(left=0.085, right=0.985, top=0.89, bottom=0.06)
        for axes, (name, text) in zip(panels.flat, _PANELS.items(), strict=True):
            for place, key in enumerate(there):
                _group(axes, record, key, there[0], name, (place - (len(there) - 1) / 2) * 0.26)
            axes.axhline(0, color=style.GREY, linewidth=0.8, zorder=0)
            axes.set(xlim=(-0.55, 5.55), ylabel=f"{text} − mean (%)")
            axes.set_xticks(range(6), [each.label for each in species.TARGETS])
            axes.tick_params(axis="x", which="both", length=0)
            axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        figure.legend(handles=[_handle(record, key) for key in there], loc="upper center", ncols=len(there))
        style.label(panels[0, 0], True)
        style.label_detail(panels[0, 1], f"test sample, {style.tracks_text(record['tracks'])}")
        style.save(figure, out_dir / FILE)
    what = "the mean of the seeds" if there[0][0] == "seeds" else "the mean of the folds"
    caption = (
        f"Every training as the difference, in percentage points, of its figures of merit from {what}. Bars: mean and "
        "standard deviation of one training."
    )
    return {"file": FILE, "title": "Spread of replicas", "caption": caption, "subject": "spread", "species": None}


def _group(
    axes: Any, record: dict[str, Any], key: tuple[str, str], first: tuple[str, str], name: str, at: float
) -> None:
    varied, sample = key
    _, marker, filled = _GROUPS[key]
    for x, target in enumerate(species.TARGETS):
        own, zero = (record["spread"][v][s][target.name][name] for v, s in (key, first))
        values = [
            each["figures"][sample][target.name][name]
            for each in record["replicas"]
            if (each["fold"] is None) == (varied == "seeds")
        ]
        if None in values or zero["mean"] is None:
            continue
        shown = 100 * (np.array(values) - zero["mean"])
        colour = style.colour(target)
        axes.plot(
            np.full(len(shown), x + at - 0.04), shown, marker, color=colour, alpha=0.75, markersize=4.5,
            markerfacecolor=colour if filled else "white", linestyle="none",
        )  # fmt: skip
        axes.errorbar(x + at + 0.06, 100 * (own["mean"] - zero["mean"]), 100 * own["std"], fmt="_", color=style.INK,
                      markersize=7, linewidth=1.2, capsize=2)  # fmt: skip


def _handle(record: dict[str, Any], key: tuple[str, str]) -> Line2D:
    text, marker, filled = _GROUPS[key]
    number = record["spread"][key[0]][key[1]][species.TARGET_NAMES[0]]["f1"]["replicas"]
    return Line2D([], [], linestyle="none", marker=marker, color=style.INK, markersize=6,
                  markerfacecolor=style.INK if filled else "white", label=text.format(number))  # fmt: skip
