"""The one place for the looks of figures: style, colours, labels, and how a figure becomes a file.

The base is the ALICE style of mplhep, scaled to figures that are read on a screen or in a note. Figures are made
without pyplot and inside an ``rc_context``, so neither the backend nor the settings of whoever imports this change.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from PIL import Image

from pidml.atomic import atomic_file
from pidml.species import Species

DPI = 150
#: Okabe and Ito's palette, told apart by readers with any kind of colour vision.
_BLUE, _VERMILLION, _GREEN, _PURPLE, _ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
_KIND_COLOURS = {"pion": _BLUE, "kaon": _VERMILLION, "proton": _GREEN, "electron": _PURPLE, "muon": _ORANGE}
OTHER_COLOUR = "#7F7F7F"
GREY = "#6B6B6B"
INK = "#1A1A1A"
#: The Bayesian selection; a colour that no species has.
BAYES = "#C29B38"
SEQUENTIAL = "viridis"

_OURS: dict[str, Any] = {
    "font.size": 11,
    "axes.labelsize": 13,
    "axes.labelpad": 5,
    "axes.titlesize": 12,
    "axes.linewidth": 0.9,
    "axes.edgecolor": INK,
    "axes.axisbelow": True,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 6,
    "xtick.minor.size": 3,
    "ytick.major.size": 6,
    "ytick.minor.size": 3,
    "legend.fontsize": 10.5,
    "legend.handlelength": 1.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.subplot.left": 0.125,
    "figure.subplot.right": 0.97,
    "figure.subplot.top": 0.91,
    "figure.subplot.bottom": 0.13,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "axes.unicode_minus": True,
    # Roman letters and italics of formulas as in the text; Greek from STIX sans.
    "mathtext.fontset": "custom",
    "mathtext.rm": "TeX Gyre Heros",
    "mathtext.it": "TeX Gyre Heros:italic",
    "mathtext.bf": "TeX Gyre Heros:bold",
    "mathtext.cal": "TeX Gyre Heros:italic",
    "mathtext.fallback": "stixsans",
}
PT = r"$\mathit{p}_{\mathrm{T}}$ (GeV/$\mathit{c}$)"
P = r"$\mathit{p}$ (GeV/$\mathit{c}$)"
F1 = r"$\mathit{F}_{1}$"
#: What stands in every plot of an efficiency: which tracks it counts.
DENOMINATOR = "efficiency of reconstructed, selected tracks"


def colour(particle: Species) -> str:
    """Return the colour of a species; an antiparticle has its particle's, and dashes or open markers."""
    return _KIND_COLOURS[kind(particle)]


def kind(particle: Species) -> str:
    """Return the species' name regardless of charge: pion, kaon, proton, electron or muon."""
    name = particle.name.removeprefix("anti")
    return "electron" if name == "positron" else name


def is_opposite(particle: Species) -> bool:
    """Tell whether a species is drawn as the antiparticle of its kind (negative hadron, positive lepton)."""
    return particle.pdg < 0


def line_style(particle: Species) -> str:
    """Return the line style of a species: full, or dashed for an antiparticle."""
    return "--" if is_opposite(particle) else "-"


@contextmanager
def canvas(size: tuple[float, float] = (7.0, 5.0)) -> Iterator[Figure]:
    """Yield an empty figure of ``size`` inches in this package's style; draw and :func:`save` it inside the block."""
    with mpl.rc_context():
        mpl.rcdefaults()
        settings: Any = {**mplhep.style.ALICE, **_OURS, "figure.figsize": size}
        mpl.rcParams.update(settings)
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        yield figure


def label(axes: Axes, simulation: bool, detail: str = "") -> None:
    """Write above the axes what the plot shows: its origin on the left, ``detail`` on the right."""
    origin = "simulation" if simulation else "ALICE data"
    first = axes.text(0.0, 1.015, "pidml", transform=axes.transAxes, fontsize=12, fontweight="bold", va="bottom")
    axes.annotate(
        origin, (1.0, 0.0), xycoords=first, xytext=(5, 0), textcoords="offset points", fontsize=12, va="bottom"
    )
    if detail:
        label_detail(axes, detail)


def label_detail(axes: Axes, detail: str) -> None:
    """Write ``detail`` above the axes on the right, for figures whose last panel is not their first."""
    axes.text(1.0, 1.015, detail, transform=axes.transAxes, fontsize=9.5, ha="right", va="bottom", color=GREY)


def png(figure: Figure, colours: int = 256) -> bytes:
    """Return a figure as a PNG, the same bytes for the same content; ``colours`` in its palette (0: true colours)."""
    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB")
    if colours:
        image = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    smaller = io.BytesIO()
    image.save(smaller, format="png", optimize=True)
    return smaller.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as :func:`png` makes it, atomically.

    Raises:
        StoreError: the place is not writable or full.
    """
    content = png(figure)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def momentum_axis(axes: Axes, low: float, high: float, text: str) -> None:
    """Make the x axis logarithmic in momentum (GeV/c), with plain numbers at round values."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [value for value in (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 50) if low <= value <= high]
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(text)


def tracks_text(count: int) -> str:
    """Return a number of tracks for people: ``12,345 tracks``, ``1.25 million tracks``.

    >>> tracks_text(12345), tracks_text(2_500_000)
    ('12,345 tracks', '2.5 million tracks')
    """
    return f"{count / 1e6:.4g} million tracks" if count >= 1_000_000 else f"{count:,} tracks"
