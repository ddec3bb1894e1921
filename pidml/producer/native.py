"""The native producer: AO2D files in, one track table per ``DF_`` directory out, without O2Physics.

One directory is in memory at a time (and the next one, which is being read). Directories keep their names; where
several inputs have one of the same name, the later ones get the next free numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from pidml import atomic
from pidml.data import root_files
from pidml.data.ahead import ahead
from pidml.errors import NoTables
from pidml.producer import ao2d, assemble, selection
from pidml.simulation import metadata

_EVENTS, _TRACKS = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class ProducerSummary:
    """What was read, removed and written.

    Attributes:
        tree: name of the trees written.
        read: tracks in the raw tables.
        removed: cut → tracks that it removed of those that the cuts before it had left.
        written: tracks written in all.
        frames: directory written → its tracks.
        renamed: "file: directory" of the input → directory written, where they differ.
    """

    tree: str
    read: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    written: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Source:
    """A directory of an input file, the name it gets, and how many of its collisions and tracks are drawn."""

    path: Path
    frame: str
    name: str
    number: int
    events_drawn: int | None = None
    tracks_drawn: int | None = None


@dataclass(frozen=True)
class _Run:
    """Settings of one call."""

    simulation: bool
    magnetic_field: float
    seed: int

    def generator(self, stream: int, number: int) -> np.random.Generator:
        """Return the random numbers of one purpose and directory (0: shares of all directories)."""
        return np.random.default_rng([self.seed, stream, number])


def produce_native(
    inputs: Sequence[Path],
    output: Path,
    simulation: bool,
    field: float,
    subsample_tracks: int = 0,
    subsample_events: int = 0,
    seed: int = 0,
) -> ProducerSummary:
    """Write the global tracks of AO2D files as ``O2pidtracksmcml`` (simulation) or ``O2pidtracksdataml`` trees.

    Args:
        inputs: AO2D files.
        output: ROOT file, written atomically.
        simulation: whether truth is read and written.
        field: solenoid field along z in tesla; its sign is that of the runs.
        subsample_tracks: number of selected tracks kept, drawn uniformly from all inputs; 0 keeps all.
        subsample_events: number of collisions kept, drawn likewise, first; 0 keeps all.
        seed: of the drawing.

    Raises:
        InputMissing, CorruptFile, NoTables, MissingColumn, BadValues: an input cannot be used.
        DiskFull, StoreError: the output cannot be written.
    """
    run = _Run(simulation, field, seed)
    sources = _sources(inputs)
    if subsample_events:
        sources = _with_events_drawn(sources, subsample_events, run)
    if subsample_tracks:
        sources = _with_tracks_drawn(sources, subsample_tracks, run)
    marked = all(_is_marked(path) for path in inputs)
    tree = "O2pidtracksmcml" if simulation else "O2pidtracksdataml"
    removed: Counter[str] = Counter(dict.fromkeys(selection.CUTS, 0))
    read, frames = 0, {}
    types = {column.name: np.dtype(column.dtype) for column in assemble.output_columns(simulation)}
    with (
        atomic.atomic_file(output) as temporary,
        uproot.recreate(temporary, compression=uproot.ZSTD(1)) as file,
        closing(ahead(_tables(sources, run, removed))) as tables,
    ):
        if marked:
            file[metadata.KEY] = metadata.TEXT
        for source, size, columns in tables:
            file.mktree(f"{source.name}/{tree}", types).extend(columns)
            frames[source.name] = len(columns["fP"])
            read += size
    renamed = {f"{s.path}: {s.frame}": s.name for s in sources if s.frame != s.name}
    return ProducerSummary(tree, read, dict(removed), sum(frames.values()), frames, renamed)


def _sources(inputs: Sequence[Path]) -> list[_Source]:
    """List the directories of all inputs and give each a name of its own."""
    found: list[tuple[Path, str]] = []
    for path in inputs:
        with root_files.open_root(path) as file:
            frames = root_files.data_frames(file, path)
        if not frames:
            raise NoTables(f"{path}: no DF_ directories in this ROOT file", "is it an AO2D file?")
        found += [(path, frame) for frame in frames]
    free = max((int(frame[3:]) for _, frame in found), default=0) + 1
    used: set[str] = set()
    sources = []
    for number, (path, frame) in enumerate(found, start=1):
        name = frame
        if frame in used:
            name, free = f"DF_{free}", free + 1
        used.add(name)
        sources.append(_Source(path, frame, name, number))
    return sources


def _frames(sources: Sequence[_Source]) -> Generator[tuple[_Source, Any]]:
    """Yield each source with its open file."""
    for path, group in groupby(sources, key=lambda source: source.path):
        with root_files.open_root(path) as file:
            for source in group:
                yield source, file


def _selected(
    sources: Sequence[_Source], run: _Run, removed: Counter[str]
) -> Generator[tuple[_Source, ao2d.RawFrame, assemble.SelectedTracks]]:
    """Yield the raw tables of each source and its global tracks.

    Raises:
        BadValues: a file has more impossible values than are tolerated.
    """
    bad: Counter[Path] = Counter()
    read: Counter[Path] = Counter()
    for source, file in _frames(sources):
        raw = ao2d.read_frame(file, source.path, source.frame, run.simulation)
        before = removed["bad_values"]
        yield source, raw, assemble.select(raw, run.magnetic_field, removed, _drawn_events(source, raw, run))
        read[source.path] += len(raw)
        bad[source.path] += removed["bad_values"] - before
    for path, number in bad.items():
        selection.require_few_bad(path, number, read[path])


def _tables(
    sources: Sequence[_Source], run: _Run, removed: Counter[str]
) -> Generator[tuple[_Source, int, ao2d.Columns]]:
    """Yield each source with the number of its raw tracks and the columns of its track table."""
    for source, raw, selected in _selected(sources, run, removed):
        kept = selected
        if source.tracks_drawn is not None:
            kept = selected.take(_draw(run.generator(_TRACKS, source.number), len(selected), source.tracks_drawn))
            removed["track_not_drawn"] += len(selected) - len(kept)
        yield source, len(raw), assemble.table_of(raw, kept)


def _with_events_drawn(sources: Sequence[_Source], wanted: int, run: _Run) -> list[_Source]:
    sizes = [ao2d.collisions_in(file, source.path, source.frame) for source, file in _frames(sources)]
    shares = _shares(run.generator(_EVENTS, 0), sizes, wanted)
    return [replace(source, events_drawn=share) for source, share in zip(sources, shares, strict=True)]


def _with_tracks_drawn(sources: Sequence[_Source], wanted: int, run: _Run) -> list[_Source]:
    """Run the selection once to know how many tracks there are to draw from."""
    sizes = [len(selected) for _, _, selected in _selected(sources, run, Counter())]
    shares = _shares(run.generator(_TRACKS, 0), sizes, wanted)
    return [replace(source, tracks_drawn=share) for source, share in zip(sources, shares, strict=True)]


def _shares(generator: np.random.Generator, sizes: Sequence[int], wanted: int) -> list[int]:
    """Return how many of ``wanted`` things drawn without replacement come from each group of these sizes."""
    if wanted >= sum(sizes):
        return list(sizes)
    shares: list[int] = generator.multivariate_hypergeometric(sizes, wanted, method="marginals").tolist()
    return shares


def _draw(generator: np.random.Generator, size: int, wanted: int) -> NDArray[np.intp]:
    """Return ``wanted`` of the numbers 0 … ``size`` − 1, ascending."""
    return np.sort(generator.choice(size, wanted, replace=False, shuffle=False))


def _drawn_events(source: _Source, raw: ao2d.RawFrame, run: _Run) -> NDArray[np.bool_] | None:
    if source.events_drawn is None:
        return None
    size = len(raw.collisions["fPosX"])
    drawn = np.zeros(size, bool)
    drawn[_draw(run.generator(_EVENTS, source.number), size, source.events_drawn)] = True
    return drawn


def _is_marked(path: Path) -> bool:
    """Tell whether a file says that this package simulated it; its track table then says so too."""
    with root_files.open_root(path) as file, root_files.reading(path, metadata.KEY):
        return metadata.made_by_simulation(file)
