"""Track tables from any mixture of input files: AO2D files go through a producer, track tables pass through."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pidml.data.track_tables import kind_of_file
from pidml.producer.shares import EVERYTHING, Share
from pidml.spec.data_sections import Producer


def produce(
    inputs: Sequence[Path],
    out: Path,
    producer: Producer,
    *,
    simulation: bool,
    seed: int,
    records: Path,
    share: Share = EVERYTHING,
) -> dict[str, Any]:
    """Write the track tables of one group of files into the folder ``out``.

    Args:
        inputs: AO2D files, or track tables made elsewhere; recognised by their content.
        out: an existing folder; gets ``tracks.root`` and, for files passed through, ``tracks_<n>.root``.
        producer: the job's settings.
        simulation: whether truth is to be had.
        seed: for subsampling.
        records: where containers are on the record (:func:`pidml.producer.containers.records_of`).
        share: how many collisions and tracks of the AO2D files are kept; tables passed through are kept whole.

    Returns:
        Facts for the provenance: what was produced (``None`` if nothing) and what passed through.

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
    if raw and 0 in (share.events, share.tracks):
        print("nothing is drawn of this group: its share of the subsample is 0", flush=True)  # noqa: T201 - step log
        facts["produced"] = None
    elif raw and producer.backend == "o2physics":
        facts["produced"] = _by_o2physics(raw, out, producer, simulation, seed, share, records)
    elif raw:
        facts["produced"] = _by_native(raw, out, producer, simulation, seed, share)
    return facts


def _by_native(
    inputs: Sequence[Path], out: Path, producer: Producer, simulation: bool, seed: int, share: Share
) -> dict[str, Any]:
    from pidml.producer.native import produce_native

    summary = produce_native(
        inputs,
        out / "tracks.root",
        simulation=simulation,
        field=producer.magnetic_field,
        subsample_tracks=share.tracks or 0,
        subsample_events=share.events or 0,
        seed=seed,
    )
    return summary.as_dict()


def _by_o2physics(
    inputs: Sequence[Path],
    out: Path,
    producer: Producer,
    simulation: bool,
    seed: int,
    share: Share,
    records: Path,
) -> dict[str, Any]:
    from pidml.producer.merge import Drawing
    from pidml.producer.o2physics import produce_o2physics

    drawing = Drawing(share.events or 0, share.tracks or 0, seed)
    return produce_o2physics(inputs, out, producer, simulation=simulation, records=records, drawing=drawing)


def _link(path: Path, target: Path) -> None:
    """Give a file a second name; copy it only where the file system cannot."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
