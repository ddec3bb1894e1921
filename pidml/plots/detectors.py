"""Figures of detector signals against momentum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from pidml import species
from pidml.evaluation.counts import CLASS_NAMES
from pidml.plots import style

if TYPE_CHECKING:
    from pidml.explore import Plotted

Values = NDArray[np.floating[Any]]
_MIN_TRACKS = 40
#: Both charges of each kind of particle: text, positions in CLASS_NAMES, species for colour and mass.
KINDS: tuple[tuple[str, tuple[int, ...], species.Species], ...] = tuple(
    (
        text,
        (CLASS_NAMES.index(first), CLASS_NAMES.index(second)),
        species.by_name(first),
    )
    for text, first, second in (
        (r"$\pi$", "pion", "antipion"),
        ("K", "kaon", "antikaon"),
        ("p", "proton", "antiproton"),
        ("e", "electron", "positron"),
        (r"$\mu$", "muon", "antimuon"),
    )
)


def _map(figure: Figure, axes: Axes, x: Values, y: Values, x_edges: Values, y_edges: Values) -> None:
    counts, _, _ = np.histogram2d(x, y, bins=(x_edges, y_edges))
    mesh = axes.pcolormesh(
        x_edges, y_edges, np.where(counts > 0, counts, np.nan).T, cmap=style.SEQUENTIAL,
        norm=LogNorm(1, max(float(counts.max()), 10.0)), rasterized=True,
    )  # fmt: skip
    bar = figure.colorbar(mesh, ax=axes, pad=0.015, fraction=0.05)
    bar.set_label("tracks per bin", labelpad=2)


def _momentum_range(momentum: Values) -> tuple[float, float]:
    positive = momentum[momentum > 0]
    if not len(positive):
        return 0.1, 20.0
    low, high = np.quantile(positive, [0.0005, 0.9998])
    return float(max(low * 0.9, 0.01)), float(max(high, 2 * low))


def _medians(momentum: Values, signal: Values, edges: Values) -> tuple[Values, Values]:
    """Return bin centres and medians of the bins that hold enough tracks."""
    index = np.digitize(momentum, edges) - 1
    centres, medians = [], []
    for position in range(len(edges) - 1):
        mine = signal[index == position]
        if len(mine) >= _MIN_TRACKS:
            centres.append(np.sqrt(edges[position] * edges[position + 1]))
            medians.append(np.median(mine))
    return np.array(centres), np.array(medians)


def tpc_signal(shown: Plotted, path: Path) -> None:
    """Draw dE/dx against momentum with the median of each species."""
    momentum, signal = shown.aux["fP"], shown.aux["fTPCSignal"]
    there = (momentum > 0) & (signal > 0)
    low, high = _momentum_range(momentum[there])
    top = float(np.clip(np.quantile(signal[there], 0.999), 150, 1000)) if there.any() else 200.0
    bottom = float(np.quantile(signal[there], 0.0005)) * 0.8 if there.any() else 20.0
    _signal_map(shown, momentum, signal, there, (low, high), (bottom, top), r"TPC d$E$/d$x$ (arb. units)", path)


def trd_signal(shown: Plotted, limit: float, path: Path) -> None:
    """Draw the TRD signal against momentum with the median of each species; ``limit`` in GeV/c."""
    momentum, signal = shown.aux["fP"], shown.feature("fTRDSignal")
    there = (momentum > 0) & (signal > 0)
    low, high = _momentum_range(momentum[there])
    bottom, top = np.quantile(signal[there], [0.0005, 0.999])
    _signal_map(
        shown, momentum, signal, there, (low, high), (float(bottom), float(top)), "TRD signal (arb. units)", path, limit
    )


def _signal_map(
    shown: Plotted, momentum: Values, signal: Values, there: NDArray[np.bool_], p_range: tuple[float, float],
    y_range: tuple[float, float], text: str, path: Path, limit: float | None = None,
) -> None:  # fmt: skip
    with style.canvas((8.0, 5.4)) as figure:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.095, right=0.945, bottom=0.12)
        x_edges, y_edges = np.geomspace(*p_range, 241), np.geomspace(*y_range, 201)
        _map(figure, axes, momentum[there], signal[there], x_edges, y_edges)
        axes.set_yscale("log")
        axes.set_ylim(*y_range)
        ticks = [value for value in (10, 20, 30, 50, 100, 200, 300, 500, 1000) if y_range[0] <= value <= y_range[1]]
        axes.set_yticks(ticks, [str(value) for value in ticks])
        axes.yaxis.set_minor_formatter(NullFormatter())
        style.momentum_axis(axes, *p_range, style.P)
        axes.set_ylabel(text)
        if shown.simulation:
            for name, positions, particle in KINDS:
                mine = there & np.isin(shown.kind, positions)
                centres, medians = _medians(momentum[mine], signal[mine], np.geomspace(*p_range, 61))
                _outlined(axes, centres, medians, name, particle)
            if axes.get_lines():
                axes.legend(
                    loc="upper right", ncols=5, title="median of each species", title_fontsize=10, columnspacing=1
                )
        if limit:
            axes.axvline(limit, color=style.INK, linestyle=":", linewidth=1.4)
        style.label(axes, shown.simulation, style.tracks_text(int(np.count_nonzero(there))))
        style.save(figure, path)


def _outlined(axes: Axes, x: Values, y: Values, name: str, particle: species.Species) -> None:
    from matplotlib import patheffects

    if not len(x):
        return
    outline = [patheffects.withStroke(linewidth=3.6, foreground="white")]
    axes.plot(x, y, color=style.colour(particle), linewidth=1.8, label=name, path_effects=outline)


def tof_beta(shown: Plotted, limit: float, path: Path) -> None:
    """Draw β against momentum with the expectation for each mass; ``limit`` in GeV/c."""
    momentum, beta = shown.aux["fP"], shown.aux["fBeta"]
    there = (momentum > 0) & ~np.isnan(beta)
    low, high = _momentum_range(momentum[there])
    with style.canvas((8.0, 5.4)) as figure:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.095, right=0.945, bottom=0.12)
        _map(figure, axes, momentum[there], beta[there], np.geomspace(low, high, 241), np.linspace(0.2, 1.25, 211))
        line = np.geomspace(low, high, 300)
        for name, _, particle in KINDS:
            _outlined(axes, line, line / np.hypot(line, particle.mass), name, particle)
        style.momentum_axis(axes, low, high, style.P)
        axes.set(ylim=(0.2, 1.25), ylabel=r"TOF $\beta$")
        axes.legend(loc="lower right", ncols=5, columnspacing=1)
        if low < limit < high:
            axes.axvline(limit, color=style.INK, linestyle=":", linewidth=1.4)
        style.label(axes, shown.simulation, f"{style.tracks_text(int(np.count_nonzero(there)))} with TOF")
        style.save(figure, path)
