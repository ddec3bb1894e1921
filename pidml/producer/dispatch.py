"""Track tables from any mixture of input files: AO2D files go through a producer, track tables pass through."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pidml.data.track_tables import kind_of_file
from pidml.spec.data_sections import Producer


def produce(
    inputs: Sequence[Path], out: Path, producer: Producer, *, simulation: bool, seed: int, groups: int = 1
) -> dict[str, Any]:
    """Write the track tables of one group of files into the folder ``out``.

    Args:
        inputs: AO2D files, or track tables made elsewhere; recognised by their content.
        out: an existing folder; gets ``tracks.root`` and, for files passed through, ``tracks_<n>.root``.
        producer: the job's settings; subsampling is shared equally between groups.
        simulation: whether truth is to be had.
        seed: for subsampling.
        groups: number of groups of the whole job.

    Returns:
        Facts for the provenance: what was produced and what passed through.

    Raises:
        CorruptFile, NoTables, MissingColumn, BadValues, NoTracks: an input cannot be used; see :mod:`pidml.errors`.
    """
    kinds = [kind_of_file(path) for path in inputs]
    raw = [path for path, kind in zip(inputs, kinds, strict=True) if kind == "ao2d"]
    ready = [path for path, kind in zip(inputs, kinds, strict=True) if kind == "tracks"]
    facts: dict[str, Any] = {"passed_through": len(ready)}
    for number, path in enumerate(ready, start=1):
        _link(path, out / f"tracks_{number:03d}.root")
    if raw:
        facts["produced"] = _produce_raw(raw, out / "tracks.root", producer, simulation, seed, groups)
    return facts


def _produce_raw(
    inputs: Sequence[Path], output: Path, producer: Producer, simulation: bool, seed: int, groups: int
) -> dict[str, Any]:
    from pidml.producer.native import produce_native

    summary = produce_native(
        inputs,
        output,
        simulation=simulation,
        field=producer.magnetic_field,
        subsample_tracks=-(-producer.subsample_tracks // groups),
        subsample_events=-(-producer.subsample_events // groups),
        seed=seed,
    )
    return summary.as_dict()


def _link(path: Path, target: Path) -> None:
    """Give a file a second name; copy it only where the file system cannot."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
