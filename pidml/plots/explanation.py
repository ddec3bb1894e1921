"""Figures of feature importance: bars and Shapley values of tracks per species, and a map per missing pattern."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pidml import species
from pidml.plots import style

if TYPE_CHECKING:
    from pidml.explanation.sample import Matrix, Sample

Real = NDArray[np.float64]
#: Stands in the names of files that show all species.
EVERYONE = "all-species"
#: Tracks drawn at most in a figure of Shapley values.
_DRAWN = 2000
_SIZE = r"mean |Shapley value|"
_TEXTS = {
    "importance": (
        "What the {name} certainty rests on",
        (
            "Left: mean absolute Shapley value, of the tracks that have the feature. Middle and right: increase of the "
            "logarithmic loss and decrease of F1 when values are exchanged among tracks of the same missing pattern. "
            "Lower part: all features of a kind together. Bars: standard errors."
        ),
    ),
    "shapley": (
        "How features move the {name} certainty",
        (
            "Each point is a track, at the change of its certainty that the feature accounts for, against tracks that "
            "lack the same detectors. Colour: where the value lies among the sample's."
        ),
    ),
    "patterns": (
        "Importance per missing pattern",
        (
            "Mean absolute Shapley value, in per cent of certainty, of the tracks with each missing pattern. Grey: "
            "these tracks lack the feature."
        ),
    ),
}
_PATTERN_LABELS = {
    "complete": "complete",
    "no-tof": "no TOF",
    "no-trd": "no TRD",
    "no-trd-no-tof": "neither TRD nor TOF",
}


def draw_all(record: dict[str, Any], sample: Sample, values: Matrix, out_dir: Path) -> list[dict[str, Any]]:
    """Draw every figure.

    Args:
        record: the content of ``explanation.json`` but for the plots.
        sample: the explained tracks.
        values: their Shapley values, (tracks, species, features).
        out_dir: where the PNG files go, named ``explain_<subject>_<species>.png``.

    Returns:
        One record per figure: ``file``, ``title``, ``caption``, ``subject`` and ``species`` (None if it shows all).
    """
    made: list[dict[str, Any]] = []

    def keep(subject: str, name: str | None = None) -> Path:
        title, caption = _TEXTS[subject]
        file = f"explain_{subject}_{name or EVERYONE}.png"
        made.append(
            {"file": file, "title": title.format(name=name), "caption": caption, "subject": subject, "species": name}
        )
        return out_dir / file

    patterns(record, keep("patterns"))
    for position, target in enumerate(species.TARGETS):
        importance(record, target, keep("importance", target.name))
        swarm(sample, values[:, position], target, keep("shapley", target.name))
    return made


def importance(record: dict[str, Any], particle: species.Species, path: Path) -> None:
    """Draw Shapley values and permutation importance of one species, most important feature first, kinds below."""
    shapley = record["shapley"][particle.name]["all"]
    permuted = record["permutation"][particle.name]["all"]
    ranked = sorted(shapley, key=lambda name: -shapley[name]["mean_abs"])
    alone = [name for name in ranked if name not in record["kinds"]]
    together = [name for name in ranked if name in record["kinds"]]
    place = {name: row + (0.6 if name in together else 0) for row, name in enumerate([*alone, *together])}
    height = 0.27 * len(place) + 1.5
    with style.canvas((11.0, height)) as figure:
        panels = figure.subplots(1, 3, sharey=True, gridspec_kw={"wspace": 0.06})
        figure.subplots_adjust(left=0.125, right=0.985, top=1 - 0.42 / height, bottom=0.72 / height)
        _bars(panels[0], place, {name: (each["mean_abs"], each["error"]) for name, each in shapley.items()}, particle)
        panels[0].set_xlabel(_SIZE)
        for axes, figure_name, text in (
            (panels[1], "log_loss", "increase of the loss (nats per track)"),
            (panels[2], "f1", f"decrease of {style.F1}"),
        ):
            found = {name: each[figure_name] for name, each in permuted.items() if figure_name in each}
            _bars(axes, place, {name: (each["importance"], each["error"]) for name, each in found.items()}, particle)
            axes.set_xlabel(text)
        panels[0].set_yticks(list(place.values()), [_named(record, name) for name in place], fontsize=10)
        panels[0].set_ylim(max(place.values()) + 0.7, -0.7)
        style.label(panels[0], True)
        detail = f"{particle.label} {particle.name}, test sample, {style.tracks_text(record['tracks'])}"
        style.label_detail(panels[2], detail)
        style.save(figure, path)


def _named(record: dict[str, Any], subject: str) -> str:
    return f"all {subject}" if subject in record["kinds"] else subject


def _bars(
    axes: Axes, place: dict[str, float], found: dict[str, tuple[float, float | None]], particle: species.Species
) -> None:
    colour = style.colour(particle)
    for name, (value, error) in found.items():
        kind = place[name] != int(place[name])
        axes.barh(place[name], value, 0.72, color=colour, alpha=0.45 if kind else 0.9)
        if error is not None:
            axes.errorbar(value, place[name], xerr=error, color=style.INK, linewidth=1, capsize=0)
    axes.axvline(0, color=style.INK, linewidth=0.8)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.tick_params(axis="y", which="both", length=0)
    axes.tick_params(axis="x", labelsize=9.5)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def swarm(sample: Sample, values: Matrix, particle: species.Species, path: Path) -> None:
    """Draw the Shapley values of tracks, one row of points per feature, coloured by the feature's value."""
    rows = np.linspace(0, len(sample) - 1, min(len(sample), _DRAWN)).astype(np.int64)
    shown, features = np.array(values[rows], np.float64), sample.features[rows]
    size = np.array([np.abs(column[~np.isnan(column)]).sum() for column in shown.T])
    order = np.argsort(-size / np.maximum((~np.isnan(shown)).sum(axis=0), 1), kind="stable")
    height = 0.42 * len(order) + 1.3
    with style.canvas((8.4, height)) as figure:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.175, right=0.9, top=1 - 0.4 / height, bottom=0.7 / height)
        reach = max(float(np.nanmax(np.abs(shown), initial=0.0)), 1e-6)
        points: Any = None
        for row, index in enumerate(order):
            there = ~np.isnan(shown[:, index])
            x = shown[there, index]
            points = axes.scatter(x, row + 0.4 * _offsets(x, reach), s=3.5, c=_ranks(features[there, index]), vmin=0,
                                  vmax=1, cmap=style.SEQUENTIAL, linewidths=0, rasterized=True)  # fmt: skip
        axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(order)), [sample.names[index] for index in order], fontsize=10)
        axes.tick_params(axis="y", which="both", length=0)
        axes.set(ylim=(len(order) - 0.4, -0.6), xlim=(-1.08 * reach, 1.08 * reach))
        axes.set_xlabel("Shapley value: change of the certainty")
        bar = figure.colorbar(points, cax=figure.add_axes((0.92, 0.3, 0.014, 0.4)), ticks=[0, 1])
        bar.ax.set_yticklabels(["lowest", "highest"], fontsize=9)
        bar.set_label("value of the feature", fontsize=10, labelpad=-22, loc="center")
        bar.ax.tick_params(which="both", length=0)
        style.label(axes, True, f"{particle.label} {particle.name}, {style.tracks_text(len(rows))} of the test sample")
        style.save(figure, path)


def _ranks(values: NDArray[np.float32]) -> Real:
    """Return where each value lies among all, 0 to 1; equal values share their middle."""
    ordered = np.sort(values)
    middle = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2
    return np.asarray(middle / max(len(values) - 1, 1), np.float64)


def _offsets(x: Real, reach: float) -> Real:
    """Return how far each point is moved off its row so that crowded places become broad, −1 to 1."""
    cell = np.floor(x / reach * 60).astype(np.int64)
    order = np.argsort(cell, kind="stable")
    _, first, size = np.unique(cell[order], return_index=True, return_counts=True)
    within = np.empty(len(x))
    within[order] = np.arange(len(x)) - np.repeat(first, size)
    count = np.empty(len(x))
    count[order] = np.repeat(size, size)
    side = np.where(within % 2 == 0, 1, -1)
    return np.asarray(side * np.ceil(within / 2) / max(count.max(initial=1) / 2, 8), np.float64)


def patterns(record: dict[str, Any], path: Path) -> None:
    """Draw a map of species and features for each missing pattern that occurs."""
    there = [name for name in _PATTERN_LABELS if record["patterns"].get(name)]
    names: Sequence[str] = record["features"]
    tables = {name: _map(record, name, names) for name in there}
    largest = max(float(np.nanmax(table, initial=0.0)) for table in tables.values()) or 1.0
    columns = 2 if len(there) > 1 else 1
    lines = -(-len(there) // columns)
    height = 0.36 * len(species.TARGETS) * lines + 0.5 * lines + 1.2
    with style.canvas((6.6 * columns + 0.6, height)) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True,
                               gridspec_kw={"hspace": 0.2, "wspace": 0.03})  # fmt: skip
        figure.subplots_adjust(
            left=0.9 / (6.6 * columns + 0.6), right=0.995, top=1 - 0.4 / height, bottom=1.25 / height
        )
        for axes in grid.ravel()[len(there) :]:
            axes.set_visible(False)
        for axes, name in zip(grid.ravel(), there, strict=False):
            _draw_map(axes, tables[name], largest)
            text = f"{_PATTERN_LABELS[name]}: {style.tracks_text(record['patterns'][name])}"
            axes.set_title(text, fontsize=10.5, loc="right", color=style.GREY, pad=4)
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
            axes.set_yticks(range(len(species.TARGETS)), [each.label for each in species.TARGETS], fontsize=12)
            axes.tick_params(which="both", length=0)
        style.label(grid[0, 0], True)
        style.save(figure, path)


def _map(record: dict[str, Any], pattern: str, names: Sequence[str]) -> Real:
    table = np.full((len(species.TARGETS), len(names)), np.nan)
    for row, target in enumerate(species.TARGETS):
        own = record["shapley"][target.name].get(pattern, {})
        for column, name in enumerate(names):
            if name in own:
                table[row, column] = own[name]["mean_abs"]
    return table


def _draw_map(axes: Axes, table: Real, largest: float) -> None:
    axes.set_facecolor("#EEEEEE")
    axes.imshow(table, cmap="Blues", norm=PowerNorm(0.5, 0, largest), aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            text = f"{100 * value:.1f}" if value >= 0.0005 else ("<0.1" if value else "0")
            axes.text(column, row, text, ha="center", va="center", fontsize=8,
                      color="white" if value > 0.4 * largest else style.INK)  # fmt: skip
