"""Tables of scores written chunk by chunk as ROOT or Parquet, with their provenance inside the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
import uproot
from numpy.typing import NDArray

from pidml.apply.table import PROVENANCE, TREE
from pidml.data import root_files
from pidml.errors import CorruptFile, SpecError, ToolMissing
from pidml.tracks import Column

Format = Literal["root", "parquet"]
_SUFFIXES: dict[str, Format] = {".root": "root", ".parquet": "parquet", ".pq": "parquet"}
_KEY = b"pidml"


def format_of(path: Path, asked: str = "") -> Format:
    """Return the format to write: the one asked for, or the one that the suffix tells.

    Raises:
        SpecError: there is no such format, or the suffix tells none.
    """
    if asked in ("root", "parquet"):
        return asked  # type: ignore[return-value]
    if asked:
        raise SpecError(f"no format is called {asked!r}", "allowed: root, parquet")
    if path.suffix.lower() not in _SUFFIXES:
        raise SpecError(f"{path}: its suffix tells no format", "name it *.root or *.parquet, or give the format")
    return _SUFFIXES[path.suffix.lower()]


class Writer(Protocol):
    """What writes a table; to be used in a ``with`` statement."""

    def __enter__(self) -> Self:
        """Return the writer itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""

    def write(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Append rows."""

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write the provenance; nothing follows."""


class RootWriter:
    """Writes a tree ``pidscores``, and the provenance as a string beside it."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self._file = uproot.recreate(path, compression=uproot.ZSTD(1))
        self._tree = self._file.mktree(TREE, {column.name: np.dtype(column.dtype) for column in columns})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Append rows as one basket per column."""
        self._tree.extend(dict(rows))

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write the provenance."""
        self._file[PROVENANCE] = _as_text(provenance)


class ParquetWriter:
    """Writes a row group per chunk, and the provenance into the file's metadata."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as error:
            raise ToolMissing(
                "writing Parquet needs the package pyarrow", "pip install 'pidml[parquet]', or write ROOT"
            ) from error
        fields = [
            pa.field(
                each.name, pa.from_numpy_dtype(np.dtype(each.dtype)), False, {"unit": each.unit, "doc": each.meaning}
            )
            for each in columns
        ]
        self._table = pa.table
        self._schema = pa.schema(fields)
        # certainties hardly repeat: a dictionary of them costs half the time and a third of the size
        repeating = [each.name for each in columns if not each.dtype.startswith("f")]
        self._file = parquet.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=repeating)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Append rows as one row group."""
        if len(next(iter(rows.values()))):
            self._file.write_table(self._table(dict(rows), schema=self._schema))

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write the provenance."""
        self._file.add_key_value_metadata({_KEY.decode(): _as_text(provenance)})


def open_writer(fmt: Format, path: Path, columns: Sequence[Column]) -> Writer:
    """Begin a table at ``path``.

    Raises:
        ToolMissing: the package that writes this format is not installed.
    """
    return RootWriter(path, columns) if fmt == "root" else ParquetWriter(path, columns)


def read_provenance(path: Path | str) -> dict[str, Any]:
    """Return how a table of scores came to be: bundle, thresholds, inputs, counts.

    Raises:
        InputMissing: there is no such file.
        CorruptFile: it is no table of scores.
    """
    path = Path(path)
    with root_files.reading(path):
        with path.open("rb") as stream:
            start = stream.read(4)
        if start == b"PAR1":
            from pyarrow import parquet

            text = (parquet.read_metadata(path).metadata or {}).get(_KEY, b"").decode()
        else:
            with root_files.open_root(path) as file:
                there = PROVENANCE in file.keys(recursive=False, cycle=False)
                text = str(file[PROVENANCE]) if there else ""
    if not text:
        raise CorruptFile(f"{path}: no provenance in it", "was it made by `pidml apply`?")
    found: dict[str, Any] = json.loads(text)
    return found


def _as_text(provenance: Mapping[str, Any]) -> str:
    return json.dumps(provenance, ensure_ascii=False, allow_nan=False)
