"""Figures of a sample's composition and of its features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pidml import species
from pidml.evaluation.counts import CLASS_NAMES
from pidml.plots import style
from pidml.plots.detectors import KINDS
from pidml.tracks import COLUMNS, PATTERN_NAMES

if TYPE_CHECKING:
    from pidml.explore import Plotted

#: Missing pattern → colour and text; darker means less is known.
_PATTERNS = {
    0: ("#DDEBF7", "complete"),
    1: ("#9EC9E2", "no TOF"),
    2: ("#E6B45E", "no TRD"),
    3: ("#2F6C9F", "neither TRD nor TOF"),
}
_BINS = 80


def spectra(shown: Plotted, path: Path) -> None:
    """Draw the number of tracks against transverse momentum per species."""
    pt = shown.aux["fPt"]
    high = float(np.clip(np.quantile(pt, 0.9999), 2, 50))
    edges = np.geomspace(max(float(pt.min()), 0.05), high, 61)
    with style.canvas((7.4, 5.4)) as figure:
        axes = figure.subplots()
        total, _ = np.histogram(pt, edges)
        axes.stairs(total / np.diff(edges), edges, color=style.INK, linewidth=1.2, label="all tracks")
        for particle, mine in _each_species(shown):
            counts, _ = np.histogram(pt[mine], edges)
            axes.stairs(np.where(counts > 0, counts / np.diff(edges), np.nan), edges, color=style.colour(particle),
                        linestyle=style.line_style(particle), linewidth=1.5, label=particle.label,
                        baseline=None)  # fmt: skip
        axes.set_yscale("log")
        style.momentum_axis(axes, edges[0], edges[-1], style.PT)
        axes.set_ylabel(r"d$\mathit{N}$/d$\mathit{p}_{\mathrm{T}}$ ((GeV/$\mathit{c}$)$^{-1}$)")
        axes.legend(loc="lower left", ncols=3, columnspacing=1.2)
        style.label(axes, shown.simulation, f"reconstructed, selected tracks: {style.tracks_text(len(pt))}")
        style.save(figure, path)


def _each_species(shown: Plotted) -> Iterator[tuple[species.Species, NDArray[np.bool_]]]:
    if shown.simulation:
        for position, particle in enumerate(species.ALL):
            mine = shown.kind == position
            if mine.any():
                yield particle, mine


def pattern_fractions(shown: Plotted, path: Path) -> None:
    """Draw, per species, which part of the tracks has which missing pattern."""
    table = np.array([[np.count_nonzero((shown.kind == kind) & (shown.pattern == code)) for code in PATTERN_NAMES]
                      for kind in range(len(CLASS_NAMES))])  # fmt: skip
    there = [kind for kind in range(len(CLASS_NAMES)) if table[kind].sum()]
    table = np.concatenate([table[there], table.sum(axis=0, keepdims=True)])
    share = table / table.sum(axis=1, keepdims=True)
    names = [
        *(f"{species.ALL[k].label} {species.ALL[k].name}" if k < len(species.ALL) else "other" for k in there),
        "all tracks",
    ]
    height = 0.44 * len(names) + 1.5
    with style.canvas((8.4, height)) as figure:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.17, right=0.98, top=1 - 0.78 / height, bottom=0.66 / height)
        left = np.zeros(len(names))
        for position, (colour, text) in enumerate(_PATTERNS.values()):
            axes.barh(range(len(names)), share[:, position], left=left, color=colour, label=text, height=0.78)
            for row, value in enumerate(share[:, position]):
                if value > 0.035:
                    axes.text(left[row] + value / 2, row, f"{100 * value:.1f} %", ha="center", va="center",
                              fontsize=9.5,
                              color="white" if position == 3 else style.INK)  # fmt: skip
            left += share[:, position]
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", which="both", length=0)
        axes.set(xlim=(0, 1), xlabel="fraction of the species' tracks")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0 + 0.3 / height), ncols=4, fontsize=10)
        style.label(axes, shown.simulation, style.tracks_text(len(shown.kind)))
        style.save(figure, path)


def patterns_against_momentum(shown: Plotted, path: Path) -> None:
    """Draw which part of the tracks has which missing pattern, against momentum."""
    momentum = shown.aux["fP"]
    positive = momentum[momentum > 0]
    low, high = np.quantile(positive, [0.0005, 0.999]) if len(positive) else (0.1, 10.0)
    edges = np.geomspace(max(float(low), 0.05), float(high), 81)
    counts = np.array([np.histogram(momentum[shown.pattern == code], edges)[0] for code in PATTERN_NAMES], np.float64)
    total = counts.sum(axis=0)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    with style.canvas((7.4, 5.0)) as figure:
        axes = figure.subplots()
        below = np.zeros(len(total))
        for code, (colour, text) in _PATTERNS.items():
            axes.stairs(below + share[code], edges, baseline=below, fill=True, color=colour, label=text)
            below = below + share[code]
        axes.set(ylim=(0, 1), ylabel="fraction of tracks")
        style.momentum_axis(axes, edges[0], edges[-1], style.P)
        axes.set_axisbelow(False)
        legend = axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")
        legend.get_frame().set_linewidth(0)
        style.label(axes, shown.simulation, style.tracks_text(len(momentum)))
        style.save(figure, path)


def features(shown: Plotted, path: Path) -> None:
    """Draw the distribution of every feature, both charges of each kind of particle together."""
    columns = 4
    rows = -(-len(shown.names) // columns)
    with style.canvas((13.0, 2.6 * rows + 0.7)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"hspace": 0.5, "wspace": 0.2})
        height = 2.6 * rows + 0.7
        figure.subplots_adjust(left=0.045, right=0.99, top=1 - 0.5 / height, bottom=0.55 / height)
        for axes in grid.ravel()[len(shown.names) :]:
            axes.set_visible(False)
        for position, name in enumerate(shown.names):
            _feature(grid.ravel()[position], shown, shown.features[:, position], name)
        first = grid[0, 0]
        handles, labels = first.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper right", ncols=len(labels), fontsize=12, bbox_to_anchor=(0.99, 1 - 0.05 / height)
        )
        style.label(first, shown.simulation)
        style.save(figure, path)


def _feature(axes: Axes, shown: Plotted, values: NDArray[np.float32], name: str) -> None:
    there = ~np.isnan(values)
    unit = COLUMNS[name].unit
    axes.set_xlabel(f"{name} ({unit})" if unit else name, fontsize=10.5)
    axes.tick_params(labelsize=9)
    if not there.any():
        axes.text(
            0.5, 0.5, "missing for every track", transform=axes.transAxes, ha="center", va="center", color=style.GREY
        )
        return
    edges = _edges(values[there])
    everything = [("all tracks", np.ones(len(values), bool), style.INK)]
    kinds = [(text, np.isin(shown.kind, both), style.colour(one)) for text, both, one in KINDS]
    drawn = []
    for text, mine, colour in kinds if shown.simulation else everything:
        counts, _ = np.histogram(values[mine & there], edges)
        if counts.sum():
            share = np.where(counts > 0, counts / counts.sum(), np.nan)
            axes.stairs(share, edges, color=colour, linewidth=1.2, label=text, baseline=None)
            drawn.append(share)
    shares = np.concatenate(drawn) if drawn else np.array([])
    if len(shares) and np.nanmax(shares) > 30 * np.nanmin(shares):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, None)
    axes.set_xlim(edges[0], edges[-1])


def _edges(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return bin edges: one bin per value for few whole numbers, otherwise evenly over the central 99.8 %."""
    sample = values[:: max(1, len(values) // 100_000)].astype(np.float64)
    distinct = np.unique(sample)
    if len(distinct) <= 256 and np.all(distinct == np.round(distinct)) and distinct[-1] - distinct[0] <= 256:
        return np.arange(distinct[0] - 0.5, distinct[-1] + 1.0)
    low, high = np.quantile(sample, [0.001, 0.999])
    if low >= high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)


def correlations(names: Sequence[str], values: NDArray[np.float64], simulation: bool, path: Path) -> None:
    """Draw the correlation matrix of the features, in per cent."""
    size = 0.42 * len(names) + 1.9
    with style.canvas((size + 0.5, size)) as figure:
        axes = figure.subplots()
        figure.subplots_adjust(left=1.35 / (size + 0.5), right=0.99, top=1 - 0.35 / size, bottom=1.3 / size)
        axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else str(round(100 * value)).replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize=8,
                      color="white" if abs(value) > 0.6 else style.INK)  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=9.5)
        axes.set_yticks(range(len(names)), names, fontsize=9.5)
        axes.tick_params(which="both", length=0)
        style.label(axes, simulation, "Pearson correlation (%)")
        style.save(figure, path)
