"""Files that a bundle is applied to: track tables, or AO2D files through the native producer, chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.apply.infinite import Infinite
from pidml.data import root_files, track_tables
from pidml.data.track_tables import TrackTable
from pidml.errors import MissingColumn
from pidml.producer import ao2d, assemble, selection

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Input:
    """A file to which a bundle is applied.

    Attributes:
        path: the file.
        kind: track tables or raw tables.
        rows: rows that will be read: tracks of the track tables, or of the raw tables before the selection.
        columns: columns that all its tracks have.
        tables: its track tables; none for AO2D files.
        frames: its ``DF_`` directories.
        uuid: the identifier that ROOT gave the file when it was made.
    """

    path: Path
    kind: Literal["tracks", "ao2d"]
    rows: int
    columns: frozenset[str]
    tables: tuple[TrackTable, ...]
    frames: tuple[str, ...]
    uuid: str

    @property
    def simulation(self) -> bool:
        """Whether the truth is known."""
        return set(tracks.TRUTH_COLUMNS) <= self.columns


@dataclass(frozen=True)
class Chunk:
    """Some tracks, in the order of the input.

    Attributes:
        files: (tracks,), position of each track's file in the list of inputs, from 0.
        frames: (tracks,), number of its ``DF_`` directory.
        rows: (tracks,), its row in the track table, or in the raw table of tracks.
        read: rows of the input that this chunk stands for.
        infinite: (tracks,), which have an infinite value.
        columns: name → values (tracks,), float32 with NaN for missing; ``fPdgCode`` int32.
    """

    files: NDArray[np.int64]
    frames: NDArray[np.int64]
    rows: NDArray[np.int64]
    read: int
    infinite: NDArray[np.bool_]
    columns: Columns

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, file: int, frame: str, rows: NDArray[Any], read: int, columns: Columns) -> Chunk:
        """Return a chunk of one directory's tracks."""
        files, frames = (np.full(len(rows), number, np.int64) for number in (file, int(frame[3:])))
        infinite = np.zeros(len(rows), np.bool_)
        for values in columns.values():
            infinite |= np.isinf(values)
        return cls(files, frames, rows.astype(np.int64), read, infinite, columns)

    @classmethod
    def joined(cls, parts: Sequence[Chunk]) -> Chunk:
        """Return one chunk of several."""
        if len(parts) == 1:
            return parts[0]
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        files, frames, rows, infinite = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("files", "frames", "rows", "infinite")
        )
        return cls(files, frames, rows, sum(part.read for part in parts), infinite, columns)


def inspect(path: Path) -> Input:
    """Look at what a file holds; no column is read.

    Raises:
        InputMissing, CorruptFile, NoTables: it cannot be used.
    """
    kind = track_tables.kind_of_file(path)
    with root_files.open_root(path) as file:
        uuid = str(file.file.uuid)
        if kind == "ao2d":
            frames = tuple(root_files.data_frames(file, path))
            columns = _producible(simulation=all(ao2d.has_truth(file, path, frame) for frame in frames))
            rows = sum(ao2d.tracks_in(file, path, frame) for frame in frames)
            return Input(path, kind, rows, columns, (), frames, uuid)
    tables = tuple(track_tables.list_tables(path))
    common = frozenset.intersection(*(frozenset(table.columns) for table in tables))
    rows = sum(table.tracks for table in tables)
    return Input(path, kind, rows, common, tables, tuple(table.frame for table in tables), uuid)


def _producible(*, simulation: bool) -> frozenset[str]:
    return frozenset(column.name for column in assemble.output_columns(simulation))


def require(inputs: Sequence[Input], needed: Sequence[str]) -> None:
    """Check that every table has the columns that a bundle needs.

    Raises:
        MissingColumn: naming the file, the table and the columns.
    """
    for each in inputs:
        places = [(f"{table.path}: {table.place} has", set(table.columns)) for table in each.tables]
        if each.kind == "ao2d":
            places = [(f"{each.path}: the native producer makes of AO2D tables", set(each.columns))]
        for place, present in places:
            if absent := [name for name in needed if name not in present]:
                raise MissingColumn(
                    f"{place} no column {', '.join(absent)}, which the bundle needs",
                    "apply the bundle to track tables with the columns in its columns_for_training.json",
                )


def chunks(inputs: Sequence[Input], names: Sequence[str], magnetic_field: float, size: int) -> Generator[Chunk]:
    """Yield the tracks of all files in order, at most ``size`` at a time; small directories come together.

    Of AO2D files these are the tracks that pass the producer's selection, with or without a matched particle, and one
    ``DF_`` directory is in memory at a time.

    Args:
        inputs: as :func:`inspect` returns them.
        names: columns to read.
        magnetic_field: tesla, for AO2D files.
        size: tracks at most per chunk.

    Raises:
        CorruptFile, BadValues, NoTables, MissingColumn: naming the file, table and column.
    """
    waiting: list[Chunk] = []
    held = 0
    for number, each in enumerate(inputs):
        if each.kind == "tracks":
            found = _of_tables(number, each, names, size)
        else:
            found = _of_ao2d(number, each, names, magnetic_field, size)
        for part in found:
            if held + len(part) > size:
                yield Chunk.joined(waiting)
                waiting, held = [], 0
            waiting.append(part)
            held += len(part)
    if waiting:
        yield Chunk.joined(waiting)


def _of_tables(number: int, given: Input, names: Sequence[str], size: int) -> Generator[Chunk]:
    done: Counter[str] = Counter()
    infinite = Infinite(given.path, given.rows)
    for table, columns in track_tables.iterate(given.tables, names, size):
        found = len(columns[names[0]])
        rows = np.arange(done[table.frame], done[table.frame] + found)
        done[table.frame] += found
        chunk = Chunk.of(number, table.frame, rows, found, columns)
        infinite.count(table.place, chunk.infinite, columns)
        yield chunk
    infinite.require_few()


def _of_ao2d(number: int, given: Input, names: Sequence[str], magnetic_field: float, size: int) -> Generator[Chunk]:
    removed: Counter[str] = Counter()
    with root_files.open_root(given.path) as file:
        for frame in given.frames:
            raw = ao2d.read_frame(file, given.path, frame, given.simulation)
            # every global track gets an answer, as in experimental data; where truth is known it is carried along
            selected = assemble.select(replace(raw, has_particle=None), magnetic_field, removed)
            table = assemble.table_of(raw, selected)
            columns = {name: _converted(name, table[name]) for name in names}
            tracks.normalise_missing({name: values for name, values in columns.items() if name != "fPdgCode"})
            read = len(raw)
            for start in range(0, max(len(selected), 1), size):  # at least one, which says that rows were read
                part = slice(start, start + size)
                cut = {name: values[part] for name, values in columns.items()}
                yield Chunk.of(number, frame, selected.rows[part], read, cut)
                read = 0
    selection.require_few_bad(given.path, removed["bad_values"], given.rows)


def _converted(name: str, values: NDArray[Any]) -> NDArray[Any]:
    return values if name == "fPdgCode" else root_files.as_float32(values)
