"""The spread of a job's replicas: mean, standard deviation and range of every figure of merit, as tables and a plot."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pidml.atomic import atomic_file, write_json
from pidml.data.folds import HELD_OUT
from pidml.data.prepared import PreparedDataset
from pidml.evaluation.tables import plain, tree_of
from pidml.plots import spread as plots
from pidml.replicas.figures import FIGURES, Figures, figures_of
from pidml.replicas.plan import COLUMNS, FOLDS, SEEDS, TEST, Replica
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES

_log = logging.getLogger(__name__)

#: Probability that the difference of two trainings that differ by their seed alone is below ``least_difference``.
CONFIDENCE = 0.95
#: Columns that say what a row of the table is about.
_PLACE = ["varied", "sample", "species", "figure"]


def measure_spread(
    prepared: PreparedDataset, replicas: Mapping[Replica, Sequence[Path]], job: JobSpec, out_dir: Path
) -> dict[str, Any]:
    """Judge all replicas of a job; write ``spread.json``, ``spread.csv``, ``replicas.csv`` and a plot.

    Args:
        prepared: labelled data.
        replicas: each replica's training outputs; the job's own training first.
        job: its section ``thresholds`` is used.
        out_dir: existing directory to write into.

    Returns:
        The content of ``spread.json``.

    Raises:
        NoLabels: the data are experimental.
        MissingColumn: the test sample has no transverse momentum.
        NoTracks: the test sample is empty.
        CorruptFile, TrainingError: a training output is damaged or does not fit.
    """
    out_dir = Path(out_dir)
    found: dict[Replica, Figures] = {}
    for number, (replica, folders) in enumerate(replicas.items(), 1):
        _log.info("judging training %d of %d: %s", number, len(replicas), title(replica))
        found[replica] = figures_of(replica, folders, prepared, job, out_dir)
    each, spread = replica_table(found), spread_table(found)
    for file, frame in (("replicas", each), ("spread", spread)):
        with atomic_file(out_dir / f"{file}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.7g")
    record = plain(
        {
            "format": 1,
            "confidence": CONFIDENCE,
            "tracks": len(prepared.split(TEST)),
            "replicas": [
                {"seed": replica.seed, "fold": str(replica.fold) if replica.fold else None, "figures": figures}
                for replica, figures in found.items()
            ],
            "spread": tree_of(spread, list(spread.columns.drop(_PLACE)), *_PLACE),
        }
    )
    record["plots"] = [plots.draw(record, out_dir)]
    write_json(out_dir / "spread.json", record)
    return dict(record)


def title(replica: Replica) -> str:
    """Return what a replica is called."""
    return f"seed {replica.seed}" + (f", without {replica.fold}" if replica.fold else "")


def replica_table(found: Mapping[Replica, Figures]) -> pd.DataFrame:
    """Return one row per replica, sample and species: what it varies, its seed and fold, and every figure."""
    rows = [
        {"varied": replica.varies, "seed": replica.seed, "fold": replica.fold.number if replica.fold else None,
         "sample": sample, "species": name, **values}
        for replica, figures in found.items()
        for sample, by_species in figures.items()
        for name, values in by_species.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"fold": "Int64"})


def spread_table(found: Mapping[Replica, Figures]) -> pd.DataFrame:
    """Return one row per what is varied, sample, species and figure.

    Columns: ``varied``, ``sample``, ``species``, ``figure``, and what :func:`spread_of` gives. Where only folds are
    asked for, one training alone has no spread by seeds, and there are no such rows.
    """
    rows = []
    for varied, sample in COLUMNS:
        judged = [figures[sample] for replica, figures in found.items() if replica.varies == varied]
        if len(judged) < 2:
            continue
        for name in TARGET_NAMES:
            for figure in FIGURES:
                values = [by_species[name][figure] for by_species in judged]
                place = dict(zip(_PLACE, (varied, sample, name, figure), strict=True))
                rows.append(place | spread_of(values, independent=varied == SEEDS))
    return pd.DataFrame(rows)


def spread_of(values: Sequence[float], *, independent: bool) -> dict[str, float]:
    """Return number, mean, standard deviation (of one training, n − 1 in the denominator), minimum and maximum.

    Where trainings are independent, also the ``least_difference``: two trainings that differ by chance alone are
    closer than √2 · t · std in 95 of 100 cases, with Student's t for n − 1 degrees of freedom, because std itself is
    known from n trainings only. The trainings of folds share tracks, so for these it is NaN.

    >>> {key: round(value, 4) for key, value in spread_of([0.1, 0.2, 0.3], independent=True).items()}
    {'replicas': 3, 'mean': 0.2, 'std': 0.1, 'min': 0.1, 'max': 0.3, 'least_difference': 0.6085}
    """
    array = np.asarray(values, np.float64)
    std = float(array.std(ddof=1))
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(array) - 1))
    return {
        "replicas": len(array),
        "mean": float(array.mean()),
        "std": std,
        "min": float(array.min()),
        "max": float(array.max()),
        "least_difference": float(np.sqrt(2)) * quantile * std if independent else float("nan"),
    }


def summary_lines(record: dict[str, Any], figure: str = "f1") -> list[str]:
    """Return a table of one figure of merit as lines of text, from the content of ``spread.json``."""
    spread = record["spread"]
    there = [(varied, sample) for varied, sample in COLUMNS if sample in spread.get(varied, {})]
    texts = {(SEEDS, TEST): "{} seeds", (FOLDS, TEST): "{} folds", (FOLDS, HELD_OUT): "{} folds, held-out tracks"}
    head = [f"{figure.upper():<10}"]
    for key in there:
        number = spread[key[0]][key[1]][TARGET_NAMES[0]][figure]["replicas"]
        head.append(f"{texts[key].format(number):<26}")
    if SEEDS in spread:
        head.append(f"chance, {record['confidence']:.0%}")
    lines = ["  ".join(head).rstrip()]
    for name in TARGET_NAMES:
        cells = [f"{name:<10}"]
        for varied, sample in there:
            own = spread[varied][sample][name][figure]
            cells.append(f"{_shown(own['mean'])} ± {_shown(own['std']):<16}")
        if SEEDS in spread:
            cells.append(f"below {_shown(spread[SEEDS][TEST][name][figure]['least_difference'])}")
        lines.append("  ".join(cells).rstrip())
    return lines


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"
