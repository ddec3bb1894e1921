"""The table of scores: its columns, and its rows made of certainties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.apply.inputs import Chunk
from pidml.tracks import Column

#: Name of the tree, and of the key beside it that holds the provenance.
TREE, PROVENANCE = "pidscores", "provenance"
#: Columns of the input that are carried along where every input has them, so that tracks are recognised and binned.
CARRIED: tuple[str, ...] = ("fP", "fPt", "fPx", "fPy", "fPz", "fSign", *tracks.TRUTH_COLUMNS)

_PLACE = (
    Column("fFile", "i4", "", "position of the input file in the list of inputs, from 0"),
    Column("fDataFrame", "i8", "", "number of the DF_ directory"),
    Column("fRow", "i8", "", "row in the track table of that directory; for AO2D files, in its raw table of tracks"),
)
_MISSING = Column("fMlMissing", "u1", "", "what is missing: 0 nothing, 1 TOF, 2 TRD, 3 both; momentum limits count")


def certainty_column(species: str) -> str:
    """Return the column of a species' certainty.

    >>> certainty_column("antikaon")
    'fMlCertAntikaon'
    """
    return f"fMlCert{species.capitalize()}"


def decision_column(species: str) -> str:
    """Return the column that tells whether a track is accepted as a species.

    >>> decision_column("antikaon")
    'fMlAcceptedAntikaon'
    """
    return f"fMlAccepted{species.capitalize()}"


def output_columns(species: Sequence[str], carried: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns of the table, in order.

    Args:
        species: as the bundle has them.
        carried: those of :data:`CARRIED` that every input has.
    """
    return (
        *_PLACE,
        *(tracks.COLUMNS[name] for name in carried),
        _MISSING,
        *(Column(certainty_column(name), "f4", "", f"certainty that the track is a(n) {name}") for name in species),
        *(Column(decision_column(name), "?", "", f"certainty of {name} at or above its threshold") for name in species),
    )


def rows_of(
    chunk: Chunk,
    columns: Sequence[Column],
    species: Sequence[str],
    missing: NDArray[np.uint8],
    certainties: NDArray[np.float32],
    accepted: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """Return the rows of a chunk of tracks: column → values of the column's type.

    Args:
        chunk: the tracks.
        columns: as :func:`output_columns` returns them.
        species: names of the columns of the following two.
        missing: (tracks,) missing pattern.
        certainties: (tracks, species).
        accepted: (tracks, species).
    """
    values: dict[str, NDArray[Any]] = {
        **chunk.columns,
        "fFile": chunk.files,
        "fDataFrame": chunk.frames,
        "fRow": chunk.rows,
        _MISSING.name: missing,
    }
    for index, name in enumerate(species):
        values[certainty_column(name)] = certainties[:, index]
        values[decision_column(name)] = accepted[:, index]
    return {column.name: np.ascontiguousarray(values[column.name], column.dtype) for column in columns}
