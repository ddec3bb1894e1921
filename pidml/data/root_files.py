"""ROOT files as O2 lays them out: ``DF_<number>`` directories with one tree per table, and other keys to be skipped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from pidml.errors import CorruptFile, InputMissing, MissingColumn, PidmlError

_FRAME = re.compile(r"^DF_(\d+)$")
_MAGIC = b"root"  # what every ROOT file begins with
_NO_ROOT = "name AO2D files or track tables, which are ROOT files; if it should be one, fetch or make it again"
_HINT = "fetch or make the file again; `pidml` verifies sizes and checksums where the job states them"


@contextmanager
def reading(path: Path, place: str = "") -> Iterator[None]:
    """Turn whatever reading a damaged ROOT file raises into one named error.

    A damaged file can mislead a decoder in any way (wrong lengths, counts, class names, compressed streams), so every
    exception but the package's own, and but running out of memory, means that the file cannot be used.

    Args:
        path: the file.
        place: directory, tree and columns being read, for the error text.

    Raises:
        InputMissing: there is no such file.
        CorruptFile: the file is truncated, damaged or not a ROOT file.
    """
    try:
        yield
    except (PidmlError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputMissing(f"{path}: no such file", "check the path, in a job that of dataset.files") from error
    except Exception as error:
        where = f"{path}: {place}" if place else str(path)
        reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise CorruptFile(f"{where}: truncated, damaged or not a ROOT file ({reason})", _HINT) from error


@contextmanager
def open_root(path: Path) -> Iterator[Any]:
    """Open a ROOT file for reading; nothing of its content is cached.

    Raises:
        InputMissing, CorruptFile: see :func:`reading`.
    """
    with reading(path):
        size = path.stat().st_size
        if not size:
            raise CorruptFile(f"{path}: the file is empty", _HINT)
        with path.open("rb") as stream:
            begins = stream.read(len(_MAGIC))
        if begins != _MAGIC:
            raise CorruptFile(f"{path}: not a ROOT file: it begins with {begins!r}, not {_MAGIC!r}", _NO_ROOT)
        # Plain reads: pages of a memory map would count as memory of this process, as many as the file has.
        file = uproot.open(
            path, object_cache=None, array_cache=None, handler=uproot.MultithreadedFileSource, num_workers=1
        )
    try:
        if file.file.fEND > size:
            raise CorruptFile(f"{path}: truncated: it has {size} bytes and announces {file.file.fEND}", _HINT)
        yield file
    finally:
        file.close()


def data_frames(file: Any, path: Path) -> list[str]:
    """Return the names of the ``DF_`` directories of an open file, in numeric order."""
    with reading(path, "list of keys"):
        classes = file.classnames(recursive=False, cycle=False)
    names = [name for name, kind in classes.items() if _FRAME.match(name) and kind.startswith("TDirectory")]
    return sorted(names, key=lambda name: (int(name[3:]), name))


def trees_in(file: Any, path: Path, frame: str) -> list[str]:
    """Return the names of the trees in a ``DF_`` directory, without cycles; other objects are left out."""
    with reading(path, frame):
        classes = file[frame].classnames(recursive=False, cycle=False)
    return [name for name, kind in classes.items() if kind == "TTree"]


def open_tree(file: Any, path: Path, frame: str, tree: str) -> Any:
    """Return the newest cycle of a tree, after checking that its columns have as many rows as it announces."""
    place = f"{frame}/{tree}"
    with reading(path, place):
        opened = file[place]
        rows, lengths = opened.num_entries, {branch.name: branch.num_entries for branch in opened.branches}
    # A damaged number of rows could otherwise keep a reader busy for days.
    for name, length in lengths.items():
        if length != rows or not 0 <= rows < 2**40:
            raise CorruptFile(f"{path}: {place} announces {rows} rows, its column {name} {length}", _HINT)
    return opened


def require_columns(path: Path, place: str, present: Sequence[str], needed: Sequence[str]) -> None:
    """Check that a table has the columns that are needed.

    Raises:
        MissingColumn: naming the file, the table and the columns.
    """
    absent = [name for name in needed if name not in set(present)]
    if absent:
        raise MissingColumn(
            f"{path}: {place} has no column {', '.join(absent)}",
            f"it has: {', '.join(sorted(present))}; make the table again with these columns or do not ask for them",
        )


def read_columns(
    tree: Any, path: Path, place: str, names: Sequence[str], start: int = 0, stop: int | None = None
) -> dict[str, NDArray[Any]]:
    """Read columns of a table as NumPy arrays of the machine's byte order.

    Raises:
        MissingColumn: a column is not there.
        CorruptFile: a column cannot be read; its name is in the text.
    """
    require_columns(path, place, tree.keys(), names)
    try:
        with reading(path, place):
            arrays: Mapping[str, NDArray[Any]] = tree.arrays(
                list(names), entry_start=start, entry_stop=stop, library="np"
            )
    except CorruptFile as error:
        raise name_damaged_columns(error, tree, path, place, names) from error.__cause__
    check_lengths(path, place, arrays, (tree.num_entries if stop is None else stop) - start)
    return {name: arrays[name] for name in names}


def check_lengths(path: Path, place: str, arrays: Mapping[str, NDArray[Any]], rows: int) -> None:
    """Check that every column has as many rows as it should.

    Raises:
        CorruptFile: naming the file, table and column.
    """
    for name, values in arrays.items():
        if len(values) != rows:
            raise CorruptFile(f"{path}: {place}: column {name} has {len(values)} rows instead of {rows}", _HINT)


def name_damaged_columns(error: CorruptFile, tree: Any, path: Path, place: str, names: Sequence[str]) -> CorruptFile:
    """Find out which columns of a table cannot be read, and return an error that names them."""
    damaged = []
    for name in names:
        try:
            with reading(path, place):
                for _ in tree.iterate([name], step_size=1_000_000, library="np"):
                    pass
        except CorruptFile:
            damaged.append(name)
    if not damaged:
        return error
    return CorruptFile(f"{path}: {place}: damaged column {', '.join(damaged)}", error.hint)


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return values as a writeable float32 array that owns its data."""
    converted = values.astype(np.float32, copy=False)
    return converted if converted.flags.writeable and converted.flags.owndata else converted.copy()
