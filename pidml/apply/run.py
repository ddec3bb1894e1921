"""Applies a bundle to files: reads, evaluates and writes side by side, a chunk of tracks at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml import provenance, tracks
from pidml.apply import inputs, table
from pidml.apply.thresholds import replaced, replaced_per_pt
from pidml.apply.writers import format_of, open_writer
from pidml.atomic import atomic_file
from pidml.data.ahead import ahead
from pidml.data.taught import Taught
from pidml.errors import SpecError, StoreError
from pidml.export.bundle import Bundle
from pidml.export.files import MANIFEST
from pidml.identity import file_checksum

#: Tracks read, evaluated or written at a time; bounds the memory.
CHUNK = 50_000
#: Field in tesla with which AO2D tracks are propagated unless told otherwise, as in a job's ``producer``.
MAGNETIC_FIELD = 0.5

Rows = dict[str, NDArray[Any]]
#: Is told, as often as a chunk is written, how many rows of the inputs are done, and how many there are.
Progress = Callable[[int, int], None]


@dataclass
class ApplySummary:
    """What was written.

    Attributes:
        tracks: rows of the table.
        rows_read: tracks in the inputs; for AO2D files before the producer's selection.
        accepted: species → tracks accepted.
        none: tracks accepted as no species.
        several: tracks accepted as more than one species.
        missing: missing pattern (name) → tracks.
        lacking: feature → tracks in which it is missing (momentum limits count).
        untaught: missing pattern (name) that the networks' training hardly saw, or never, or feature that its tracks
            hardly or never lacked → what is said of such tracks.
        not_finite: tracks with a certainty that is no number (an infinite value in the input, or a network made
            elsewhere); they are not accepted as that species.
        seconds: wall time.
    """

    tracks: int = 0
    rows_read: int = 0
    accepted: dict[str, int] = field(default_factory=dict)
    none: int = 0
    several: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    untaught: dict[str, str] = field(default_factory=dict)
    not_finite: int = 0
    seconds: float = 0.0

    def count(
        self, absent: NDArray[np.bool_], missing: NDArray[np.uint8], finite: NDArray[np.bool_],
        accepted: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Add a chunk.

        Args:
            absent: (tracks, features), which values are missing.
            missing: (tracks,), missing patterns.
            finite: (tracks, species), certainties that are finite.
            accepted: (tracks, species), which are accepted.
        """
        self.tracks += len(missing)
        for name, number in zip(self.lacking, np.count_nonzero(absent, axis=0), strict=True):
            self.lacking[name] += int(number)
        for name, number in zip(self.accepted, np.count_nonzero(accepted, axis=0), strict=True):
            self.accepted[name] += int(number)
        times = np.count_nonzero(accepted, axis=1)
        self.none += int(np.count_nonzero(times == 0))
        self.several += int(np.count_nonzero(times > 1))
        for pattern, number in enumerate(np.bincount(missing, minlength=len(tracks.PATTERN_NAMES))):
            self.missing[tracks.PATTERN_NAMES[pattern]] += int(number)
        self.not_finite += int(np.count_nonzero(~finite.all(axis=1)))

    def judge(self, taught: Taught) -> None:
        """Find which of the tracks lack detectors or features in a way that the networks did not learn."""
        for pattern in taught.possible:
            name, answered = tracks.PATTERN_NAMES[pattern], taught.answered_as(pattern)
            number = self.missing[name]
            if answered == pattern or not number:
                continue
            what = "certainties are extrapolations that mean little"
            if answered is not None:
                what = f"answered as {tracks.PATTERN_NAMES[answered]}"
            had = f"{taught.patterns[pattern] or 'none'}"
            self.untaught[name] = (
                f"{number:,} of {self.tracks:,} tracks are {name}, of which the training had {had}: {what}"
            )
        for name, number in self.lacking.items():
            if (said := taught.unexpected(name, number, self.tracks)) is not None:
                self.untaught[name] = said

    @property
    def warnings(self) -> list[str]:
        """What somebody who uses the scores should know, one line each."""
        unusable = [f"{self.not_finite:,} tracks have a certainty that is no number"] if self.not_finite else []
        return [*self.untaught.values(), *unusable]

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain data for JSON."""
        return asdict(self)


def apply_bundle(
    bundle: Bundle,
    files: Sequence[Path | str],
    out: Path | str,
    *,
    fmt: str = "",
    thresholds: Mapping[str, float] | None = None,
    magnetic_field: float = MAGNETIC_FIELD,
    overwrite: bool = False,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> ApplySummary:
    """Write certainties and decisions for every track of files, in the order of the input.

    Args:
        bundle: the networks.
        files: ROOT files: track tables of any kind, or AO2D files, of which the native producer makes track tables.
        out: file to write, atomically.
        fmt: ``root`` or ``parquet``; empty: what the suffix of ``out`` says.
        thresholds: species → certainty from which a track is accepted, instead of the bundle's.
        magnetic_field: along z in tesla, for AO2D files.
        overwrite: replace ``out`` if it exists.
        chunk: tracks in memory at a time (about four chunks are alive: read, evaluated, written).
        progress: see :data:`Progress`.

    Raises:
        SpecError: an argument makes no sense.
        InputMissing, CorruptFile, NoTables, BadValues: a file cannot be used.
        MissingColumn: a file lacks a column that the bundle needs.
        StoreError: ``out`` exists or cannot be written.
        DiskFull: no space is left.
        ToolMissing: Parquet is asked for and pyarrow is not installed.
    """
    started, out, paths = time.perf_counter(), Path(out), [Path(path) for path in files]
    kind = format_of(out, fmt)
    _check_places(paths, out, overwrite)
    bundle = replace(
        bundle,
        thresholds=replaced(bundle.thresholds, thresholds or {}),
        pt_table=replaced_per_pt(bundle.pt_table, thresholds or {}),
    )
    given = [inputs.inspect(path) for path in paths]
    inputs.require(given, _needed(bundle))
    carried = [name for name in table.CARRIED if all(name in each.columns for each in given)]
    columns = table.output_columns(bundle.species, carried)
    total = sum(each.rows for each in given)
    summary = ApplySummary(
        accepted=dict.fromkeys(bundle.species, 0),
        missing=dict.fromkeys(tracks.PATTERN_NAMES.values(), 0),
        lacking=dict.fromkeys(bundle.features, 0),
    )
    names = list(dict.fromkeys([*_needed(bundle), *carried]))
    read = inputs.chunks(given, names, magnetic_field, chunk)
    with (
        atomic_file(out) as temporary,
        open_writer(kind, temporary, columns) as writer,
        closing(ahead(_scored(bundle, ahead(read), columns, summary))) as scored,
    ):
        for size, rows in scored:
            writer.write(rows)
            summary.rows_read += size
            if progress is not None:
                progress(summary.rows_read, total)
        if bundle.taught is not None:
            summary.judge(bundle.taught)
        summary.seconds = round(time.perf_counter() - started, 3)
        writer.finish(_provenance(bundle, given, summary, magnetic_field))
    return summary


def _scored(
    bundle: Bundle, chunks: Generator[inputs.Chunk], columns: Sequence[tracks.Column], summary: ApplySummary
) -> Generator[tuple[int, Rows]]:
    """Yield, for each chunk, the input's rows that it stands for and the rows to write; counts into ``summary``."""
    with closing(chunks):
        for chunk in chunks:
            features = bundle.matrix(chunk.columns)
            certainties = bundle.predict(features)
            certainties[chunk.infinite] = np.nan  # a few are tolerated: they get no score, and are counted
            missing = tracks.feature_pattern(features, bundle.features)
            accepted = bundle.accepted(certainties, None if bundle.pt_table is None else chunk.columns["fPt"])
            summary.count(np.isnan(features), missing, np.isfinite(certainties), accepted)
            yield chunk.read, table.rows_of(chunk, columns, bundle.species, missing, certainties, accepted)


def _needed(bundle: Bundle) -> list[str]:
    return list(dict.fromkeys([*bundle.features, "fP", *(["fPt"] if bundle.pt_table is not None else [])]))


def _check_places(paths: Sequence[Path], out: Path, overwrite: bool) -> None:
    if not paths:
        raise SpecError("no files to apply the bundle to", "name track tables or AO2D files")
    if out.resolve() in {path.resolve() for path in paths}:
        raise SpecError(f"{out} is one of the inputs", "write to another file")
    if out.is_dir():
        raise StoreError(f"{out} is a folder", "name a file to write to")
    if out.exists() and not overwrite:
        raise StoreError(f"{out} exists already", "name another file, or give --force to replace it")


def _provenance(
    bundle: Bundle, given: Sequence[inputs.Input], summary: ApplySummary, magnetic_field: float
) -> dict[str, Any]:
    raw = any(each.kind == "ao2d" for each in given)
    return {
        "bundle": {
            "path": str(bundle.path.absolute()),
            "manifest_sha256": file_checksum(bundle.path / MANIFEST),
            "architecture": bundle.manifest.get("architecture", ""),
        },
        "thresholds": {name: bundle.thresholds[name] for name in bundle.species},
        # of bins of pT; "thresholds" then hold only outside them, and only if the table has no "outside" of its own
        **({"thresholds_pt": bundle.pt_table} if bundle.pt_table is not None else {}),
        "momentum_limits": asdict(bundle.limits),
        "inputs": [
            {
                "path": str(each.path.absolute()),
                "kind": each.kind,
                "size": each.path.stat().st_size,
                "uuid": each.uuid,
                "rows": each.rows,
            }
            for each in given
        ],
        **({"magnetic_field": magnetic_field} if raw else {}),
        "summary": summary.as_dict(),
        "finished": provenance.now(),
        "packages": provenance.packages(),
        "git": provenance.git_commit(),
    }
