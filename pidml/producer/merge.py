"""Track tables merged into one file, and drawn from: a number of collisions, then a number of tracks.

Collisions are kept whole. Newer versions of O2Physics write the collision of each track (``fIndexCollisions``): then
exactly the number asked for is drawn from the collisions that have a track in the table. Older versions do not: then
whole ``DF_`` directories are drawn until their inputs hold at least as many collisions as asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from pidml import atomic
from pidml.data import root_files
from pidml.data.track_tables import CHUNK, TrackTable
from pidml.errors import ProducerError

#: Column that says to which collision of the directory a track belongs.
COLLISION = "fIndexCollisions"
_EVENTS, _TRACKS = 0, 1  # streams of random numbers

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class _Source:
    """A table, the directory it goes to, and what is drawn of it; None draws everything."""

    table: TrackTable
    name: str
    number: int
    events: int | None = None
    tracks: int | None = None


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn.

    Attributes:
        events: number of collisions; 0 for all.
        tracks: number of tracks, of those of the collisions drawn; 0 for all.
        seed: of the drawing.
        collisions: directory → collisions in the inputs, for tables that do not know the collision of a track.
    """

    events: int = 0
    tracks: int = 0
    seed: int = 0
    collisions: Mapping[str, int] | None = None

    def generator(self, stream: int, number: int) -> np.random.Generator:
        """Return the random numbers of one purpose and table (0: shares of all tables)."""
        return np.random.default_rng([self.seed, stream, number])


def merge(tables: Sequence[TrackTable], output: Path, drawing: Drawing | None = None) -> dict[str, Any]:
    """Write tables of one kind into one file, one ``DF_`` directory each, with all their columns; bounded memory.

    Args:
        tables: as :func:`pidml.data.track_tables.list_tables` returns them. Where several directories have the same
            name, the later ones get the next free numbers.
        output: ROOT file, written atomically.
        drawing: what to keep; everything by default.

    Returns:
        Facts: tracks written, directories, what was drawn and how.

    Raises:
        ProducerError: the tables differ in kind, or in their columns.
        CorruptFile: a table cannot be read.
        DiskFull, StoreError: the output cannot be written.
    """
    drawing = drawing or Drawing()
    _check_alike(tables)
    facts: dict[str, Any] = {}
    sources = _named(tables)
    if drawing.events:
        sources, facts["events"] = _with_events(sources, drawing)
    if drawing.tracks:
        sizes = [_kept(source, drawing) for source in sources]
        shares = _shares(drawing.generator(_TRACKS, 0), sizes, drawing.tracks)
        sources = [replace(source, tracks=share) for source, share in zip(sources, shares, strict=True)]
        facts["tracks"] = {"asked": drawing.tracks, "available": sum(sizes), "kept": sum(shares)}
    frames: dict[str, int] = {}
    with (
        atomic.atomic_file(output) as temporary,
        uproot.recreate(temporary, compression=uproot.ZSTD(1)) as file,
    ):
        for source in sources:
            frames[source.name] = _copy(source, file, drawing)
    return {"written": sum(frames.values()), "frames": frames, "drawn": facts}


def _check_alike(tables: Sequence[TrackTable]) -> None:
    first = tables[0]
    for table in tables[1:]:
        if table.tree != first.tree or set(table.columns) != set(first.columns):
            raise ProducerError(
                f"{table.path}: {table.place} has other columns than {first.path}: {first.place}",
                "they were made by different versions or chains: produce all of them again",
            )


def _named(tables: Sequence[TrackTable]) -> list[_Source]:
    free = max(int(table.frame[3:]) for table in tables) + 1
    used: set[str] = set()
    sources = []
    for number, table in enumerate(tables, start=1):
        name = table.frame
        if name in used:
            name, free = f"DF_{free}", free + 1
        used.add(name)
        sources.append(_Source(table, name, number))
    return sources


def _with_events(sources: list[_Source], drawing: Drawing) -> tuple[list[_Source], dict[str, Any]]:
    if COLLISION in sources[0].table.columns:
        sizes = [len(np.unique(_collisions(source))) for source in sources]
        shares = _shares(drawing.generator(_EVENTS, 0), sizes, drawing.events)
        drawn = [replace(source, events=share) for source, share in zip(sources, shares, strict=True)]
        how = "collisions"
        available, kept = sum(sizes), sum(shares)
    else:
        counts = {source.number: (drawing.collisions or {}).get(source.table.frame, 0) for source in sources}
        drawn, available = _whole_frames(sources, counts, drawing), sum(counts.values())
        how, kept = "directories", sum(counts[source.number] for source in drawn)
    return drawn, {"asked": drawing.events, "available": available, "kept": kept, "unit": how}


def _whole_frames(sources: list[_Source], counts: Mapping[int, int], drawing: Drawing) -> list[_Source]:
    """Draw directories until they hold enough collisions; at least one."""
    if not any(counts.values()):
        raise ProducerError(
            f"{sources[0].table.path}: collisions cannot be drawn: the table has no column {COLLISION},"
            " and the collisions of its directories are not known",
            "use a newer O2Physics, or draw tracks (producer.subsample_tracks) instead",
        )
    order = drawing.generator(_EVENTS, 0).permutation(len(sources))
    kept, found = [], 0
    for position in order:
        if found >= drawing.events:
            break
        kept.append(sources[position])
        found += counts[sources[position].number]
    return sorted(kept, key=lambda source: source.number)


def _collisions(source: _Source) -> NDArray[Any]:
    table = source.table
    with root_files.open_root(table.path) as file:
        tree = root_files.open_tree(file, table.path, table.frame, table.tree)
        return root_files.read_columns(tree, table.path, table.place, [COLLISION])[COLLISION]


def _event_rows(source: _Source, drawing: Drawing) -> Rows | None:
    """Return the rows of the collisions drawn of a table; None for all."""
    if source.events is None:
        return None
    collisions = _collisions(source)
    different, index = np.unique(collisions, return_inverse=True)
    chosen = np.zeros(len(different), bool)
    chosen[_draw(drawing.generator(_EVENTS, source.number), len(different), source.events)] = True
    return np.flatnonzero(chosen[index])


def _kept(source: _Source, drawing: Drawing) -> int:
    rows = _event_rows(source, drawing)
    return source.table.tracks if rows is None else len(rows)


def _rows(source: _Source, drawing: Drawing) -> Rows | None:
    """Return the rows to be written, ascending; None for all."""
    rows = _event_rows(source, drawing)
    if source.tracks is None:
        return rows
    size = source.table.tracks if rows is None else len(rows)
    drawn = _draw(drawing.generator(_TRACKS, source.number), size, source.tracks)
    return drawn if rows is None else rows[drawn]


def _copy(source: _Source, file: Any, drawing: Drawing) -> int:
    """Copy a table, or the rows drawn of it, chunk by chunk; return the number of rows."""
    table, rows = source.table, _rows(source, drawing)
    names = list(table.columns.values())
    written = 0
    with ExitStack() as stack:
        opened = stack.enter_context(root_files.open_root(table.path))
        tree = root_files.open_tree(opened, table.path, table.frame, table.tree)
        new: Any = None
        for start in range(0, max(table.tracks, 1), CHUNK):
            stop = min(start + CHUNK, table.tracks)
            columns = root_files.read_columns(tree, table.path, table.place, names, start, stop)
            if rows is not None:
                inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
                columns = {name: values[inside] for name, values in columns.items()}
            if new is None:
                types = {name: values.dtype for name, values in columns.items()}
                baskets = max(10, -(-table.tracks // CHUNK))
                new = file.mktree(f"{source.name}/{table.tree}", types, initial_basket_capacity=baskets)
            new.extend(columns)
            written += len(columns[names[0]])
    return written


def _shares(generator: np.random.Generator, sizes: Sequence[int], wanted: int) -> list[int]:
    """Return how many of ``wanted`` things drawn without replacement come from each group of these sizes."""
    if wanted >= sum(sizes):
        return list(sizes)
    shares: list[int] = generator.multivariate_hypergeometric(sizes, wanted, method="marginals").tolist()
    return shares


def _draw(generator: np.random.Generator, size: int, wanted: int) -> Rows:
    """Return ``wanted`` of the numbers 0 … ``size`` − 1, ascending."""
    return np.sort(generator.choice(size, wanted, replace=False, shuffle=False))
