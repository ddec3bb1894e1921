"""What prepared data look like: counts, spectra, detector signals, missing detectors, features, correlations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pidml import tracks
from pidml.atomic import atomic_file, write_json
from pidml.data.prepared import SPLITS, PreparedDataset
from pidml.errors import NoTracks
from pidml.evaluation.counts import CLASS_NAMES, class_index
from pidml.plots import exploration as plots

#: Tracks drawn at most in each plot.
MAX_PLOTTED = 1_000_000
_BLOCKS = 16


@dataclass(frozen=True)
class Plotted:
    """The tracks that are drawn, in memory.

    Attributes:
        features: (tracks, features) float32, raw, momentum limits applied.
        aux: column → (tracks,) float32; TOF and TRD as measured, whatever the momentum.
        kind: (tracks,) position in ``CLASS_NAMES``; all "other" for experimental data.
        pattern: (tracks,) missing pattern as networks see it.
        names: feature names.
        simulation: whether there are labels.
        total: tracks in the training sample, of which these are evenly spread blocks.
    """

    features: NDArray[np.float32]
    aux: dict[str, NDArray[np.float32]]
    kind: NDArray[np.int64]
    pattern: NDArray[np.uint8]
    names: tuple[str, ...]
    simulation: bool
    total: int

    def feature(self, name: str) -> NDArray[np.float32]:
        """Return one feature, shape (tracks,)."""
        return self.features[:, self.names.index(name)]


def explore(prepared: PreparedDataset, out_dir: Path) -> dict[str, Any]:
    """Draw and count prepared data; write ``exploration.json``, three CSV tables and the plots.

    Counts are of all tracks of all samples. Plots show at most :data:`MAX_PLOTTED` tracks of the training sample.

    Args:
        prepared: with or without labels.
        out_dir: existing directory to write into.

    Returns:
        The content of ``exploration.json``: tracks, counts, feature statistics and the list of plots.

    Raises:
        NoTracks: the training sample is empty.
    """
    out_dir = Path(out_dir)
    counts = count_tracks(prepared)
    shown = plotted(prepared)
    statistics = feature_statistics(shown)
    correlations = correlation(shown.features)
    for name, frame in (
        ("counts", counts),
        ("features", statistics),
        (
            "correlations",
            pd.DataFrame(correlations, index=shown.names, columns=shown.names).rename_axis("feature").reset_index(),
        ),
    ):
        with atomic_file(out_dir / f"exploration_{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.7g")
    record = {
        "format": 1,
        "tracks": {split: int(counts.loc[counts["split"] == split, "tracks"].sum()) for split in SPLITS},
        "plotted": len(shown.kind),
        "simulation": prepared.simulation,
        "counts": counts.to_dict("records"),
        "features": [
            {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
            for row in statistics.to_dict("records")
        ],
        "plots": plots.draw_all(shown, correlations, prepared.meta["momentum_limits"], out_dir),
    }
    write_json(out_dir / "exploration.json", record)
    return record


def count_tracks(prepared: PreparedDataset) -> pd.DataFrame:
    """Return the number of tracks by ``split``, ``species`` and missing ``pattern``, every combination listed."""
    rows = []
    patterns = list(tracks.PATTERN_NAMES)
    for name in SPLITS:
        split = prepared.split(name)
        table = np.zeros((len(CLASS_NAMES), len(patterns)), np.int64)
        for part in split.chunks():
            pattern = tracks.feature_pattern(np.asarray(split.features[part]), prepared.features).astype(np.int64)
            cell = class_index(np.asarray(split.pdg[part])) * len(patterns) + pattern
            table += np.bincount(cell, minlength=table.size).reshape(table.shape)
        for (kind, pattern), number in np.ndenumerate(table):
            rows.append(
                {
                    "split": name,
                    "species": CLASS_NAMES[kind],
                    "pattern": tracks.PATTERN_NAMES[patterns[pattern]],
                    "tracks": int(number),
                }
            )
    return pd.DataFrame(rows)


def plotted(prepared: PreparedDataset, limit: int = MAX_PLOTTED) -> Plotted:
    """Read at most ``limit`` tracks of the training sample, in evenly spread blocks.

    Raises:
        NoTracks: there are none.
    """
    split = prepared.split("train")
    if not len(split):
        raise NoTracks(f"{prepared.path}: the training sample is empty", "loosen the cuts or add files")
    if len(split) <= limit:
        blocks = [slice(0, len(split))]
    else:
        starts = np.linspace(0, len(split) - limit // _BLOCKS, _BLOCKS).astype(int)
        blocks = [slice(start, start + limit // _BLOCKS) for start in starts]

    def read(array: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([np.asarray(array[block]) for block in blocks])

    features, aux = read(split.features), read(split.aux)
    return Plotted(
        features=features,
        aux={name: aux[:, position] for position, name in enumerate(split.aux_names)},
        kind=class_index(read(split.pdg)),
        pattern=tracks.feature_pattern(features, prepared.features),
        names=prepared.features,
        simulation=prepared.simulation,
        total=len(split),
    )


def feature_statistics(shown: Plotted) -> pd.DataFrame:
    """Return mean, spread, quantiles and missing fraction per feature; NaN where a feature is missing throughout."""
    rows = []
    for position, name in enumerate(shown.names):
        values = shown.features[:, position].astype(np.float64)
        there = values[~np.isnan(values)]
        quantiles = np.quantile(there, [0, 0.01, 0.5, 0.99, 1]) if len(there) else np.full(5, np.nan)
        rows.append(
            {
                "feature": name,
                "unit": tracks.COLUMNS[name].unit,
                "meaning": tracks.COLUMNS[name].meaning,
                "missing": 1 - len(there) / len(values),
                "mean": there.mean() if len(there) else np.nan,
                "std": there.std() if len(there) else np.nan,
                **dict(zip(("min", "q01", "median", "q99", "max"), quantiles, strict=True)),
            }
        )
    return pd.DataFrame(rows)


def correlation(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return Pearson's correlation of each pair of features over the tracks that have both; NaN where undefined."""
    values = features.astype(np.float64)
    there = ~np.isnan(values)
    # Shifting and scaling first keeps the sums of squares exact enough; it changes no correlation.
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.array(
            [column[mask].mean() if mask.any() else 0.0 for column, mask in zip(values.T, there.T, strict=True)]
        )
        width = np.array(
            [column[mask].std() if mask.any() else 0.0 for column, mask in zip(values.T, there.T, strict=True)]
        )
        scaled = np.where(there, (values - centre) / np.where(width > 0, width, 1.0), 0.0)
        mask = there.astype(np.float64)
        number = mask.T @ mask
        mean = scaled.T @ mask / number  # mean of row's feature over tracks that have the column's too
        covariance = scaled.T @ scaled / number - mean * mean.T
        variance = (scaled**2).T @ mask / number - mean**2
        result = covariance / np.sqrt(variance * variance.T)
    result[~np.isfinite(result) | (number < 3)] = np.nan
    return np.asarray(np.clip(result, -1, 1))


__all__ = ["MAX_PLOTTED", "Plotted", "correlation", "count_tracks", "explore", "feature_statistics", "plotted"]
