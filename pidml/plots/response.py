"""Figures of the TPC response: expectation, pulls and residuals of tracks that its fit has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from pidml import species
from pidml.plots import style

if TYPE_CHECKING:
    from pidml.response.fit import ResponseFit
    from pidml.response.quality import Checked

_SYMBOLS = {"electron": "e", "muon": r"$\mu$", "pion": r"$\pi$", "kaon": "K", "proton": "p"}
#: Of numbers of tracks: one track is well visible beside thousands.
_LOGARITHMIC = LogNorm(0.2, 300, clip=True)
_PULLS = np.linspace(-6, 6, 61)
_RANGE = (0.1, 10.0)
_TEXTS = {
    "expected": (
        "Expected TPC signal",
        "Lines: expectation per hypothesis, bands its resolution (±1 σ), at the mean of the other inputs.",
    ),
    "pulls": (
        "Pulls of the TPC signal",
        "(signal − expected) ÷ resolution under the track's own species; line: unit Gaussian.",
    ),
    "pulls-vs-p": (
        "Bias and width of the pulls against momentum",
        "Median and half the central 68.27 % interval; bars: statistical errors of a Gaussian sample.",
    ),
    "pulls-vs-eta": (
        "Bias and width of the pulls against pseudorapidity",
        "Median and half the central 68.27 % interval; bars: statistical errors of a Gaussian sample.",
    ),
    "residuals": (
        "Residuals of the TPC signal against momentum",
        "signal ÷ expected − 1 under the track's own species; lines: median and central 68.27 % interval.",
    ),
}


def draw_all(
    fit: ResponseFit, tracks: Sequence[Checked], record: dict[str, Any], out_dir: Path
) -> list[dict[str, Any]]:
    """Draw every figure as ``response_<subject>.png``; return one record per figure, as the report takes them.

    Args:
        fit: the response.
        tracks: per species, tracks that the fit has not seen.
        record: their metrics, see :func:`pidml.response.quality.metrics`.
        out_dir: existing folder.
    """
    made: list[dict[str, Any]] = []
    detail = style.tracks_text(len(fit.check)) + " not used in the fit"

    def keep(subject: str, draw: Callable[[Path, str], None]) -> None:
        title, caption = _TEXTS[subject]
        file = f"response_{subject}.png"
        draw(out_dir / file, detail)
        made.append({"file": file, "title": title, "caption": caption, "subject": subject, "species": None})

    keep("expected", lambda path, text: _expected(fit, path, text))
    keep("pulls", lambda path, text: _distributions(tracks, record, path, text))
    keep("pulls-vs-p", lambda path, text: _trends(record, "p", path, text))
    if fit.response.has_angle:
        keep("pulls-vs-eta", lambda path, text: _trends(record, "eta", path, text))
    keep("residuals", lambda path, text: _residuals(tracks, path, text))
    return made


@torch.no_grad()
def _expected(fit: ResponseFit, path: Path, detail: str) -> None:
    response, momentum = fit.response, torch.logspace(-1, 1, 300)
    signal, width = (values.numpy() for values in response.curves(momentum))
    with style.canvas((8.0, 5.4)) as figure:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.095, right=0.98, bottom=0.12)
        top = float(np.clip(np.quantile(fit.check.signal.numpy(), 0.999), 150, 1000))
        axes.hexbin(
            fit.check.momentum.numpy(), fit.check.signal.numpy(), gridsize=(160, 110), xscale="log", yscale="log",
            extent=(-1, 1, np.log10(25), np.log10(top)), cmap="Greys", norm=_LOGARITHMIC, linewidths=0, mincnt=1,
        )  # fmt: skip
        for index, name in enumerate(response.species):
            colour, x, y = style.colour(species.by_name(name)), momentum.numpy(), signal[:, index]
            axes.fill_between(x, y - width[:, index], y + width[:, index], color=colour, alpha=0.25, linewidth=0)
            axes.plot(x, y, color=colour, label=_SYMBOLS[name])
        axes.set_ylim(25, top)
        ticks = [tick for tick in (30, 50, 70, 100, 200, 300, 500, 1000) if tick <= top]
        axes.set_yticks(ticks, [str(tick) for tick in ticks])
        axes.yaxis.set_minor_formatter(NullFormatter())
        style.momentum_axis(axes, *_RANGE, style.P)
        axes.set_ylabel(r"TPC d$E$/d$x$ (arb. units)")
        axes.legend(loc="upper right", ncols=5, columnspacing=1)
        style.label(axes, True, detail)
        style.save(figure, path)


def _size(number: int) -> tuple[float, float]:
    """Return the size in inches of a figure of ``number`` panels, in rows of three."""
    return 1.0 + 3.1 * min(number, 3), 0.9 + 2.7 * -(-number // 3)


def _panels(figure: Figure, number: int) -> list[Axes]:
    """Return one panel per species, in rows of three with common axes."""
    rows, columns = -(-number // 3), min(number, 3)
    width, height = _size(number)
    figure.subplots_adjust(
        left=0.8 / width, right=1 - 0.15 / width, bottom=0.6 / height, top=1 - 0.35 / height, wspace=0.05, hspace=0.06
    )
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel())
    for empty in panels[number:]:
        empty.remove()
    for axes in panels[max(0, number - columns) : number]:
        axes.tick_params(labelbottom=True)
    return panels[:number]


def _label_panels(panels: list[Axes], x: str, y: str, detail: str) -> None:
    for index, axes in enumerate(panels):
        axes.set_xlabel(x if index + 3 >= len(panels) else "")
        axes.set_ylabel(y if index % 3 == 0 else "")
    style.label(panels[0], True)
    style.label_detail(panels[min(len(panels), 3) - 1], detail)


def _distributions(tracks: Sequence[Checked], record: dict[str, Any], path: Path, detail: str) -> None:
    with style.canvas(_size(len(tracks))) as figure:
        panels = _panels(figure, len(tracks))
        middle, step = (_PULLS[1:] + _PULLS[:-1]) / 2, _PULLS[1] - _PULLS[0]
        for axes, each in zip(panels, tracks, strict=True):
            counts = np.histogram(each.pull, _PULLS)[0]
            scale = max(len(each.pull), 1) * step
            there = counts > 0
            axes.errorbar(
                middle[there], counts[there] / scale, np.sqrt(counts[there]) / scale, fmt="o", markersize=3,
                color=style.colour(species.by_name(each.name)), elinewidth=1,
            )  # fmt: skip
            axes.plot(middle, np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi), color=style.INK, linewidth=1.1)
            axes.set(yscale="log", ylim=(1e-5, 100), xlim=(-6, 6), xticks=[-4, -2, 0, 2, 4])
            pull = record["species"][each.name]["pull"]
            text = f"{style.tracks_text(len(each.pull))}"
            if pull:
                text += f"\nbias {_with_error(pull, 'bias')}\nwidth {_with_error(pull, 'width')}"
            axes.text(0.04, 0.965, _SYMBOLS[each.name], transform=axes.transAxes, va="top", fontsize=14)
            axes.text(0.965, 0.96, text, transform=axes.transAxes, va="top", ha="right", fontsize=9)
        _label_panels(panels, r"$n\sigma$", r"density (1/$\sigma$)", detail)
        style.save(figure, path)


def _with_error(pull: dict[str, float], key: str) -> str:
    return f"{pull[key]:.3f} ± {pull[key + '_error']:.3f}".replace("-", "−")


def _trends(record: dict[str, Any], variable: str, path: Path, detail: str) -> None:
    edges = np.array(record["momentum_edges" if variable == "p" else "eta_edges"])
    centres = np.sqrt(edges[1:] * edges[:-1]) if variable == "p" else (edges[1:] + edges[:-1]) / 2
    with style.canvas((8.0, 6.0)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.06})
        figure.subplots_adjust(left=0.105, right=0.98, top=0.94, bottom=0.1)
        learned = [name for name, each in record["species"].items() if each["learned"]]
        for number, name in enumerate(learned):
            rows = [
                (centre, bin)
                for centre, bin in zip(centres, record["species"][name][f"pull_vs_{variable}"], strict=True)
                if bin
            ]
            if not rows:
                continue
            colour, side = style.colour(species.by_name(name)), number - (len(learned) - 1) / 2
            x = np.array([row[0] for row in rows])
            x = x * 1.025**side if variable == "p" else x + 0.012 * side  # side by side, or bars hide each other
            for axes, key in ((upper, "bias"), (lower, "width")):
                value, error = ([row[1][each] for row in rows] for each in (key, f"{key}_error"))
                axes.errorbar(x, value, error, fmt="o", color=colour, elinewidth=1.2, label=_SYMBOLS[name])
        for axes, level, span in ((upper, 0.0, 0.6), (lower, 1.0, 0.5)):
            axes.axhline(level, color=style.GREY, linewidth=1, zorder=0)
            axes.set_ylim(level - span, level + span)
        upper.set_ylabel(r"bias of the pulls ($\sigma$)")
        lower.set_ylabel(r"width of the pulls ($\sigma$)")
        upper.legend(loc="upper right", ncols=5, columnspacing=1)
        if variable == "p":
            style.momentum_axis(lower, *_RANGE, style.P)
        else:
            lower.set(xlabel=r"pseudorapidity $\eta$", xlim=(edges[0], edges[-1]))
        style.label(upper, True, detail)
        style.save(figure, path)


def _residuals(tracks: Sequence[Checked], path: Path, detail: str) -> None:
    with style.canvas(_size(len(tracks))) as figure:
        panels = _panels(figure, len(tracks))
        edges = np.geomspace(*_RANGE, 25)
        centres = np.sqrt(edges[1:] * edges[:-1])
        for axes, each in zip(panels, tracks, strict=True):
            axes.hexbin(
                each.momentum, each.residual, gridsize=(50, 40), xscale="log", extent=(-1, 1, -0.35, 0.35),
                cmap="Greys", norm=_LOGARITHMIC, linewidths=0, mincnt=1,
            )  # fmt: skip
            _quantile_lines(axes, each.momentum, each.residual, edges, centres, each.name)
            axes.axhline(0, color=style.GREY, linewidth=1, zorder=1.5)
            style.momentum_axis(axes, *_RANGE, style.P)
            axes.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
            axes.set_ylim(-0.35, 0.35)
            axes.text(0.04, 0.965, _SYMBOLS[each.name], transform=axes.transAxes, va="top", fontsize=14)
        _label_panels(panels, style.P, "signal ÷ expected − 1", detail)
        style.save(figure, path)


def _quantile_lines(
    axes: Axes, momentum: NDArray[Any], residual: NDArray[Any], edges: NDArray[Any], centres: NDArray[Any], name: str
) -> None:
    index = np.digitize(momentum, edges) - 1
    parts = [residual[index == number] for number in range(len(centres))]
    enough = np.array([len(part) >= 40 for part in parts])
    if not enough.any():
        return
    lines = np.array([np.quantile(part, [0.15866, 0.5, 0.84134]) for part in parts if len(part) >= 40])
    for column, line in enumerate((":", "-", ":")):
        axes.plot(centres[enough], lines[:, column], line, color=style.colour(species.by_name(name)), linewidth=1.6)
