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
        ToolMissing, ConfigError, ProducerError: O2Physics cannot be run here, or failed.
        CorruptFile, NoTables, MissingColumn, BadValues, NoTracks: an input cannot be used; see :mod:`pidml.errors`.
    """
    kinds = [kind_of_file(path) for path in inputs]
    raw = [path for path, kind in zip(inputs, kinds, strict=True) if kind == "ao2d"]
    ready = [path for path, kind in zip(inputs, kinds, strict=True) if kind == "tracks"]
    facts: dict[str, Any] = {"passed_through": len(ready)}
    for number, path in enumerate(ready, start=1):
        _link(path, out / f"tracks_{number:03d}.root")
    if raw:
        make = _by_o2physics if producer.backend == "o2physics" else _by_native
        facts["produced"] = make(raw, out, producer, simulation, seed, groups)
    return facts


def _by_native(
    inputs: Sequence[Path], out: Path, producer: Producer, simulation: bool, seed: int, groups: int
) -> dict[str, Any]:
    from pidml.producer.native import produce_native

    summary = produce_native(
        inputs,
        out / "tracks.root",
        simulation=simulation,
        field=producer.magnetic_field,
        subsample_tracks=_share(producer.subsample_tracks, groups),
        subsample_events=_share(producer.subsample_events, groups),
        seed=seed,
    )
    return summary.as_dict()


def _by_o2physics(
    inputs: Sequence[Path], out: Path, producer: Producer, simulation: bool, seed: int, groups: int
) -> dict[str, Any]:
    from pidml.producer.merge import Drawing
    from pidml.producer.o2physics import produce_o2physics

    events, tracks = _share(producer.subsample_events, groups), _share(producer.subsample_tracks, groups)
    return produce_o2physics(inputs, out, producer, simulation=simulation, drawing=Drawing(events, tracks, seed))


def _share(wanted: int, groups: int) -> int:
    """Return a group's share of what the whole job wants, rounded up."""
    return -(-wanted // groups)


def _link(path: Path, target: Path) -> None:
    """Give a file a second name; copy it only where the file system cannot."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
