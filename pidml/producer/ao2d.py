"""AO2D tables of one ``DF_`` directory, joined: what the producer needs of tracks, collisions and particles.

Tables are found by their base name, the latest version first (``O2trackextra_002`` before ``_001`` before none), and
columns by their names. Rows of ``O2track…``, ``O2trackextra…`` and ``O2mctracklabel`` correspond to each other;
``fIndex…`` columns hold the row in another table of the same directory, −1 for none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml.data import root_files
from pidml.errors import BadValues, NoTables

Columns = dict[str, NDArray[Any]]

_PARAMETERS = ("fIndexCollisions", "fTrackType", "fX", "fAlpha", "fY", "fZ", "fSnp", "fTgl", "fSigned1Pt")
_EXTRA = (
    "fFlags", "fTPCNClsFindable", "fTPCNClsFindableMinusCrossedRows", "fTPCNClsShared", "fTRDPattern", "fITSChi2NCl",
    "fTPCChi2NCl", "fTOFChi2", "fTPCSignal", "fTRDSignal", "fLength", "fTOFExpMom", "fTrackTime",
)  # fmt: skip
_COLLISION = ("fPosX", "fPosY", "fPosZ", "fCollisionTime")
#: ITS layers of the inner barrel: three bits of the layer map, or four bits of cluster size for each of three layers.
_INNER_BARREL_OF_MAP, _INNER_BARREL_OF_SIZES = 0b111, 0xFFF
#: Bit of ``O2mcparticle.fFlags`` that marks physical primaries.
_PHYSICAL_PRIMARY = 0x4


@dataclass(frozen=True)
class RawFrame:
    """The raw tables of one ``DF_`` directory; all arrays of one group have the same length.

    Attributes:
        tracks: columns of the track and extra tables, plus ``inner_barrel`` (bool: a hit in ITS layers 0–2).
        at_innermost_update: whether the parameters are those of ``O2track_iu``, else of ``O2track``.
        collisions: fPosX, fPosY, fPosZ (cm), fCollisionTime (ns).
        pdg: per track, PDG code of its particle, 0 without one; None for experimental data.
        primary: per track, 1 for physical primaries; None for experimental data.
    """

    tracks: Columns
    at_innermost_update: bool
    collisions: Columns
    pdg: NDArray[np.int32] | None
    primary: NDArray[np.uint8] | None
    has_particle: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.tracks["fX"])


def latest_version(trees: Sequence[str], base: str) -> str | None:
    """Return the name of the latest version of a table among ``trees``; None if it is not there.

    >>> latest_version(["O2track_iu", "O2trackextra", "O2trackextra_002", "O2trackextra_001"], "O2trackextra")
    'O2trackextra_002'
    """
    found = [name for name in trees if re.fullmatch(rf"{base}(_\d{{3}})?", name)]
    return max(found, default=None)


def collisions_in(file: Any, path: Path, frame: str) -> int:
    """Return the number of collisions of a ``DF_`` directory."""
    reader = _FrameReader(file, path, frame)
    tree = root_files.open_tree(file, path, frame, reader.table("O2collision"))
    return int(tree.num_entries)


def tracks_in(file: Any, path: Path, frame: str) -> int:
    """Return the number of tracks in the raw tables of a ``DF_`` directory."""
    reader = _FrameReader(file, path, frame)
    tree = root_files.open_tree(file, path, frame, reader.table("O2track_iu", "O2track"))
    return int(tree.num_entries)


def has_truth(file: Any, path: Path, frame: str) -> bool:
    """Tell whether a ``DF_`` directory says which particle each track belongs to."""
    trees = root_files.trees_in(file, path, frame)
    return all(latest_version(trees, base) is not None for base in ("O2mctracklabel", "O2mcparticle"))


def read_frame(file: Any, path: Path, frame: str, simulation: bool) -> RawFrame:
    """Read what the producer needs from a ``DF_`` directory of an open AO2D file.

    Args:
        file: as :func:`pidml.data.root_files.open_root` yields it.
        path: its path, for error texts.
        frame: name of the directory.
        simulation: read labels and particles too.

    Raises:
        NoTables: a table is not there.
        MissingColumn: a column is not there.
        CorruptFile: a table cannot be read.
        BadValues: tables do not fit together.
    """
    reader = _FrameReader(file, path, frame)
    name = reader.table("O2track_iu", "O2track")
    tracks = reader.read(name, _PARAMETERS)
    extra = reader.table("O2trackextra")
    its = "fITSClusterSizes" if "fITSClusterSizes" in reader.columns(extra) else "fITSClusterMap"
    values = reader.read(extra, (*_EXTRA, its), rows=len(tracks["fX"]), like=name)
    bits = _INNER_BARREL_OF_SIZES if its == "fITSClusterSizes" else _INNER_BARREL_OF_MAP
    values["inner_barrel"] = (values.pop(its) & bits) > 0
    tracks |= values
    collision_table = reader.table("O2collision")
    collisions = reader.read(collision_table, _COLLISION)
    reader.check_index(name, "fIndexCollisions", tracks["fIndexCollisions"], collision_table, len(collisions["fPosX"]))
    truth = reader.truth(len(tracks["fX"]), name) if simulation else (None, None, None)
    return RawFrame(tracks, name.startswith("O2track_iu"), collisions, *truth)


class _FrameReader:
    """Reads tables of one directory, with errors that name the place."""

    def __init__(self, file: Any, path: Path, frame: str) -> None:
        self.file, self.path, self.frame = file, path, frame
        self.trees = root_files.trees_in(file, path, frame)

    def table(self, *bases: str) -> str:
        """Return the latest version of the first of the tables ``bases`` that is there."""
        for base in bases:
            name = latest_version(self.trees, base)
            if name is not None:
                return name
        raise NoTables(
            f"{self.path}: {self.frame} has no table {' or '.join(bases)}",
            "is it a complete AO2D file, and does dataset.simulation say rightly whether it is simulated?",
        )

    def columns(self, tree: str) -> list[str]:
        names: list[str] = root_files.open_tree(self.file, self.path, self.frame, tree).keys()
        return names

    def read(self, tree: str, names: Sequence[str], rows: int | None = None, like: str = "") -> Columns:
        """Read columns of a table, which must have ``rows`` rows if the table ``like`` is to be joined with it."""
        place = f"{self.frame}/{tree}"
        opened = root_files.open_tree(self.file, self.path, self.frame, tree)
        columns = root_files.read_columns(opened, self.path, place, names)
        for name, values in columns.items():
            if values.ndim != 1 or values.dtype.kind not in "fiub":
                raise BadValues(
                    f"{self.path}: {place}: column {name} is not one number per row (type {values.dtype})",
                    "fetch or make the file again",
                )
        found = len(next(iter(columns.values())))
        if rows is not None and found != rows:
            raise BadValues(
                f"{self.path}: {place} has {found} rows, {self.frame}/{like} has {rows}: they cannot be joined",
                "fetch or make the file again",
            )
        return columns

    def check_index(self, tree: str, name: str, index: NDArray[Any], target: str, rows: int) -> None:
        """Check that an index column points at rows that exist."""
        if len(index) and (index.min() < -1 or index.max() >= rows):
            raise BadValues(
                f"{self.path}: {self.frame}/{tree}: {name} points at rows {index.min()} … {index.max()} of {target},"
                f" which has {rows}",
                "fetch or make the file again",
            )

    def truth(self, rows: int, like: str) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.bool_]]:
        """Return PDG code, primary flag and whether there is a particle, per track."""
        label_table, particle_table = self.table("O2mctracklabel"), self.table("O2mcparticle")
        index = self.read(label_table, ["fIndexMcParticles"], rows=rows, like=like)["fIndexMcParticles"]
        particles = self.read(particle_table, ["fPdgCode", "fFlags"])
        self.check_index(label_table, "fIndexMcParticles", index, particle_table, len(particles["fPdgCode"]))
        labelled = index >= 0
        pdg, primary = np.zeros(rows, np.int32), np.zeros(rows, np.uint8)
        pdg[labelled] = particles["fPdgCode"][index[labelled]]
        primary[labelled] = (particles["fFlags"][index[labelled]] & _PHYSICAL_PRIMARY) > 0
        return pdg, primary, labelled
