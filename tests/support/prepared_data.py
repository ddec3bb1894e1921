"""Makes small prepared datasets: simulated tracks written in the format that PrepareDataset writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.prepared import AUX_COLUMNS, SPLITS, PreparedDataset
from pidml.simulation.distortion import Distortion
from pidml.simulation.generate import generate_tracks


def write_prepared(
    path: Path,
    sizes: tuple[int, int, int] = (6000, 2000, 2000),
    seed: int = 7,
    *,
    simulation: bool = True,
    features: tuple[str, ...] = tracks.FEATURES,
    keep_pdg: tuple[int, ...] | None = None,
    distortion: Distortion | None = None,
) -> PreparedDataset:
    """Simulate ``sum(sizes)`` tracks and write them as a prepared dataset of the three sizes given."""
    simulated = generate_tracks(sum(sizes), seed, distortion).columns
    if keep_pdg is not None:
        simulated["fPdgCode"] = np.where(np.isin(simulated["fPdgCode"], keep_pdg), simulated["fPdgCode"], 13)
    columns = {name: np.asarray(values, np.float32) for name, values in simulated.items()}
    columns["fEta"] = np.arcsinh(columns["fPz"] / columns["fPt"])
    aux_names = [name for name in AUX_COLUMNS if name in columns]
    aux = np.stack([columns[name] for name in aux_names], axis=1)
    limits = tracks.MomentumLimits()
    limited = {name: columns[name].copy() for name in features}
    tracks.apply_momentum_limits(limited, columns["fP"], limits)
    matrix = np.stack([limited[name] for name in features], axis=1)
    pdg = np.asarray(simulated["fPdgCode"], np.int32) if simulation else np.zeros(sum(sizes), np.int32)
    start = 0
    for name, size in zip(SPLITS, sizes, strict=True):
        _write_split(path / name, slice(start, start + size), matrix, pdg, aux)
        start += size
    standardised = [name for name in tracks.STANDARDISED if name in features]
    _write_scaling(path, matrix[: sizes[0]], features, standardised)
    meta = {
        "features": list(features), "aux": aux_names, "simulation": simulation, "seed": seed,
        "momentum_limits": {"tof": limits.tof, "trd": limits.trd},
        "counts": dict(zip(SPLITS, sizes, strict=True)),
    }  # fmt: skip
    (path / "meta.json").write_text(json.dumps(meta))
    return PreparedDataset.open(path)


def _write_split(
    folder: Path, rows: slice, matrix: NDArray[np.float32], pdg: NDArray[np.int32], aux: NDArray[np.float32]
) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "features.npy", matrix[rows])
    np.save(folder / "pdg.npy", pdg[rows])
    np.save(folder / "aux.npy", aux[rows])


def _write_scaling(path: Path, train: NDArray[np.float32], features: tuple[str, ...], standardised: list[str]) -> None:
    entries = []
    for name in standardised:
        values = train[:, features.index(name)].astype(np.float64)
        entries.append([name, float(np.nanmean(values)), float(np.nanstd(values)) or 1.0])
    (path / "scaling.json").write_text(json.dumps({"data": entries}))
