from __future__ import annotations

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pidml import species
from pidml.plots import style, training


def _draw(path):
    with style.canvas() as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=style.colour(species.by_name("kaon")))
        axes.set_xlabel(style.PT)
        axes.set_ylabel(style.F1)
        style.momentum_axis(axes, 0.1, 10, style.P)
        style.label(axes, True, r"$|n\sigma| < 3$ $\overline{\mathrm{p}}$ $\beta$")
        style.save(figure, path)


def test_same_figure_same_bytes_without_time_or_version(tmp_path):
    _draw(tmp_path / "first.png")
    _draw(tmp_path / "second.png")
    content = (tmp_path / "first.png").read_bytes()
    assert content == (tmp_path / "second.png").read_bytes()
    assert b"tEXt" not in content
    assert b"Matplotlib" not in content
    assert len(content) < 60_000
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_settings_and_backend_of_others_stay(tmp_path):
    program = (
        "import matplotlib as mpl; mpl.rcParams['font.size'] = 7.5; mpl.rcParams['backend'] = 'svg'\n"
        "before = dict(mpl.rcParams)\n"
        "from pathlib import Path; from pidml.plots import style\n"
        "with style.canvas() as figure:\n    figure.subplots()\n"
        f"    style.save(figure, Path({str(tmp_path / 'a.png')!r}))\n"
        "import sys\n"
        "assert dict(mpl.rcParams) == before, 'settings changed'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").exists()


def test_settings_are_restored_after_an_error():
    before = dict(mpl.rcParams)
    with pytest.raises(RuntimeError), style.canvas():
        raise RuntimeError
    assert dict(mpl.rcParams) == before


def test_colours_tell_kinds_apart_and_join_charges():
    colours = {particle.name: style.colour(particle) for particle in species.ALL}
    assert len(set(colours.values())) == 5
    for name in ("pion", "kaon", "proton", "muon"):
        assert colours[name] == colours[f"anti{name}"]
    assert colours["electron"] == colours["positron"]
    assert style.line_style(species.by_name("antikaon")) != style.line_style(species.by_name("kaon"))


def test_training_figure_of_one_and_of_six_networks(tmp_path):
    rows = pd.DataFrame(
        {"epoch": [0, 1, 2], "train_loss": [0.5, 0.3, 0.2], "val_loss": [0.4, 0.3, 0.31], "lr": [1e-3, 5e-4, 0.0]}
    )
    for histories in ({"Train": rows}, dict.fromkeys(species.TARGET_NAMES, rows), {"Train": rows.iloc[:1]}):
        content = training.history(histories, dict.fromkeys(histories, 1))
        (tmp_path / "training.png").write_bytes(content)
        with Image.open(tmp_path / "training.png") as image:
            assert np.asarray(image.convert("L")).std() > 10
