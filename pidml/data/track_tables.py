"""Track tables read from ROOT files: what kind of file it is, which tables it has, and their tracks chunk by chunk.

All four ``O2pidtracks…`` trees, both encodings of missing values and the column names of older files are accepted;
what comes out has the names of :mod:`pidml.tracks`, float32, with NaN for missing.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.data import root_files
from pidml.errors import BadValues, CorruptFile, NoTables
from pidml.simulation.metadata import made_by_simulation

#: Tracks per chunk unless told otherwise: with 21 columns a few tens of MB.
CHUNK = 100_000
_AO2D_TRACKS = re.compile(r"^O2track(_iu)?(_\d{3})?$")

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TrackTable:
    """A track table in a ROOT file.

    Attributes:
        path: the file.
        frame: its ``DF_`` directory.
        tree: name of the tree.
        tracks: number of tracks.
        columns: names of its columns (today's spelling) → names in the file.
        likelihood_known: whether the file says that this package simulated it, so that the exact posterior is known.
    """

    path: Path
    frame: str
    tree: str
    tracks: int
    columns: dict[str, str]
    likelihood_known: bool = False

    @property
    def simulation(self) -> bool:
        """Whether the tracks are simulated."""
        return tracks.TREES[self.tree][0]

    @property
    def place(self) -> str:
        """Directory and tree, for texts."""
        return f"{self.frame}/{self.tree}"


def kind_of_file(path: Path | str) -> Literal["tracks", "ao2d"]:
    """Tell by its content whether a ROOT file holds track tables or AO2D tables.

    Raises:
        InputMissing: there is no such file.
        CorruptFile: it is truncated, damaged or not a ROOT file.
        NoTables: it has no ``DF_`` directories, or none with either kind of table.
    """
    path = Path(path)
    with root_files.open_root(path) as file:
        for frame in _frames(file, path):
            trees = root_files.trees_in(file, path, frame)
            if any(name in tracks.TREES for name in trees):
                return "tracks"
            if any(_AO2D_TRACKS.match(name) for name in trees):
                return "ao2d"
    raise NoTables(
        f"{path}: its DF_ directories hold neither track tables nor AO2D tables",
        f"expected one of {', '.join(tracks.TREES)}, or O2track_iu or O2track",
    )


def list_tables(path: Path | str) -> list[TrackTable]:
    """Return the track tables of a file, by increasing ``DF_`` number.

    A directory that holds several track tables holds the same tracks several times: the one with most columns counts.

    Raises:
        InputMissing, CorruptFile: see :func:`kind_of_file`.
        NoTables: the file has no ``DF_`` directories or no track table in any.
    """
    path = Path(path)
    tables = []
    with root_files.open_root(path) as file:
        with root_files.reading(path, "metaData"):
            known = made_by_simulation(file)
        for frame in _frames(file, path):
            found = [_table(file, path, frame, tree, known) for tree in _track_trees(file, path, frame)]
            if found:
                tables.append(max(found, key=lambda table: len(table.columns)))
    if not tables:
        raise NoTables(f"{path}: no track table in any DF_ directory", f"expected one of {', '.join(tracks.TREES)}")
    return tables


def iterate(
    tables: Sequence[TrackTable], names: Sequence[str], chunk: int = CHUNK
) -> Generator[tuple[TrackTable, Columns]]:
    """Yield the tracks of tables in order, at most ``chunk`` at a time.

    Args:
        tables: as :func:`list_tables` returns them; those of one file should be neighbours.
        names: columns to read; nothing else is read.
        chunk: tracks at most per item; bounds the memory.

    Yields:
        The table, and column name → array of shape (tracks,): float32 with NaN for missing; ``fPdgCode`` int32.

    Raises:
        MissingColumn, CorruptFile, BadValues: naming the file, table and column.
    """
    by_file: list[list[TrackTable]] = []
    for table in tables:
        if by_file and by_file[-1][0].path == table.path:
            by_file[-1].append(table)
        else:
            by_file.append([table])
    for group in by_file:
        with root_files.open_root(group[0].path) as file:
            for table in group:
                yield from _iterate_table(file, table, names, chunk)


def _frames(file: Any, path: Path) -> list[str]:
    frames = root_files.data_frames(file, path)
    if not frames:
        raise NoTables(
            f"{path}: no DF_ directories in this ROOT file", "is it an AO2D file or the output of the PID ML producer?"
        )
    return frames


def _track_trees(file: Any, path: Path, frame: str) -> list[str]:
    return [name for name in root_files.trees_in(file, path, frame) if name in tracks.TREES]


def _table(file: Any, path: Path, frame: str, name: str, known: bool) -> TrackTable:
    tree = root_files.open_tree(file, path, frame, name)
    with root_files.reading(path, f"{frame}/{name}"):
        present: list[str] = tree.keys()
        columns = {tracks.OLD_NAMES.get(column, column): column for column in present}
        return TrackTable(path, frame, name, int(tree.num_entries), columns, known)


def _iterate_table(
    file: Any, table: TrackTable, names: Sequence[str], chunk: int
) -> Generator[tuple[TrackTable, Columns]]:
    root_files.require_columns(table.path, table.place, list(table.columns), names)
    if not table.tracks:
        return
    on_disk = [table.columns[name] for name in names]
    tree = root_files.open_tree(file, table.path, table.frame, table.tree)
    steps = tree.iterate(on_disk, step_size=chunk, library="np")
    read = 0
    while True:
        try:
            with root_files.reading(table.path, table.place):
                arrays = next(steps, None)
        except CorruptFile as error:
            damaged = root_files.name_damaged_columns(error, tree, table.path, table.place, on_disk)
            raise damaged from error.__cause__
        if arrays is None:
            break
        rows = min(chunk, table.tracks - read)
        root_files.check_lengths(table.path, table.place, arrays, rows)
        columns = {name: _converted(table, name, arrays[table.columns[name]]) for name in names}
        tracks.normalise_missing({name: values for name, values in columns.items() if name != "fPdgCode"})
        read += rows
        yield table, columns
    if read != table.tracks:
        raise CorruptFile(
            f"{table.path}: {table.place} announces {table.tracks} tracks and holds {read}", "make the file again"
        )


def _converted(table: TrackTable, name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise BadValues(
            f"{table.path}: {table.place}: column {name} is not one number per track (type {values.dtype})",
            "make the table with the PID ML producer",
        )
    if name == "fPdgCode":
        return values.astype(np.int32, copy=False)
    return root_files.as_float32(values)


def common_columns(tables: Sequence[TrackTable], needed: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``wanted`` that every table has, after checking that each has all that are ``needed``.

    Raises:
        MissingColumn: a table lacks a needed column; names the file, table and column.
    """
    for table in tables:
        root_files.require_columns(table.path, table.place, list(table.columns), needed)
    return tuple(name for name in wanted if all(name in table.columns for table in tables))
