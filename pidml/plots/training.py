"""The figures of a training's course."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pidml import species
from pidml.plots import style


def history(histories: Mapping[str, pd.DataFrame], best_epochs: Mapping[str, int]) -> bytes:
    """Draw training and validation loss and the learning rate against the epoch; return the PNG.

    Args:
        histories: network → table with columns ``epoch``, ``train_loss``, ``val_loss`` and ``lr``. A network called
            like a target species has its colour.
        best_epochs: network → epoch of the smallest validation loss; may lack networks.
    """
    with style.canvas((8.4, 5.6)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1), "hspace": 0.06})
        figure.subplots_adjust(left=0.105, right=0.98, top=0.94, bottom=0.105)
        for name, rows in histories.items():
            colour, opposite = _colours(name)
            prefix = f"{name}: " if len(histories) > 1 else ""
            epoch = rows["epoch"] + 1
            marker = {"marker": "o", "markerfacecolor": "white" if opposite else colour}
            upper.plot(epoch, rows["val_loss"], color=colour, label=f"{prefix}validation", **marker)
            upper.plot(epoch, rows["train_loss"], color=colour, linestyle="--", alpha=0.7, label=f"{prefix}training")
            lower.plot(epoch, rows["lr"], color=colour, **marker)
            best = best_epochs.get(name)
            if best is not None and (rows["epoch"] == best).any():
                value = rows.loc[rows["epoch"] == best, "val_loss"].iloc[0]
                upper.plot([best + 1], [value], marker="*", markersize=14, color=colour, linestyle="none",
                           label="best epoch" if len(histories) == 1 else None)  # fmt: skip
        upper.set_ylabel("loss (nats per track)")
        losses = np.concatenate([rows[["val_loss", "train_loss"]].to_numpy().ravel() for rows in histories.values()])
        if losses.min() > 0 and losses.max() > 3 * losses.min():
            upper.set_yscale("log")  # the first epoch would press all others against the axis
            upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            upper.yaxis.set_major_formatter("{x:g}")
            upper.yaxis.set_minor_formatter(NullFormatter())
        lower.set(xlabel="epoch", ylabel="learning rate", yscale="log")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        lower.xaxis.set_minor_locator(MaxNLocator(1))
        upper.legend(loc="upper right", ncols=2 if len(histories) > 1 else 1)
        style.label(upper, True)
        return style.png(figure)


def domains(histories: Mapping[str, pd.DataFrame]) -> bytes:
    """Draw the discriminator's accuracy and the coefficient against the epoch; return the PNG.

    Args:
        histories: network → table with columns ``epoch``, ``domain_accuracy`` and ``coefficient``. A network called
            like a target species has its colour.
    """
    with style.canvas((8.4, 5.6)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1), "hspace": 0.06})
        figure.subplots_adjust(left=0.105, right=0.98, top=0.94, bottom=0.105)
        for name, rows in histories.items():
            colour, opposite = _colours(name)
            epoch, label = rows["epoch"] + 1, name if len(histories) > 1 else "discriminator"
            marker = {"marker": "o", "markerfacecolor": "white" if opposite else colour}
            upper.plot(epoch, rows["domain_accuracy"], color=colour, label=label, **marker)
            lower.plot(epoch, rows["coefficient"], color=colour, **marker)
        upper.axhline(0.5, color=style.INK, linestyle=":", label="chance")
        highest = max(float(rows["domain_accuracy"].max()) for rows in histories.values())
        lowest = min(float(rows["domain_accuracy"].min()) for rows in histories.values())
        upper.set(ylabel="accuracy, simulation against experiment", ylim=(min(0.45, lowest - 0.02), highest + 0.06))
        lower.set(xlabel="epoch", ylabel="coefficient", ylim=(0, None))
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        lower.xaxis.set_minor_locator(MaxNLocator(1))
        upper.legend(loc="upper right", ncols=2 if len(histories) > 2 else 1)
        style.label(upper, True)
        return style.png(figure)


def _colours(name: str) -> tuple[str, bool]:
    """Return the colour of a network, and whether its species is an antiparticle."""
    if name not in species.TARGET_NAMES:
        return style.INK, False
    target = species.by_name(name)
    return style.colour(target), style.is_opposite(target)
