"""Simulates a set of files: the work behind ``pidml simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from numpy.random import SeedSequence

from pidml.errors import SpecError
from pidml.simulation.ao2d import write_ao2d
from pidml.simulation.track_tables import TableFormat, split_evenly, write_track_table

_TRACKS_PER_RAW_FRAME = 500_000


def simulate_files(
    out_dir: Path | str,
    tracks: int,
    files: int = 1,
    fmt: Literal["ao2d", "tracks"] = "ao2d",
    seed: int = 1,
    frames: int = 3,
    tree: str = "O2pidtracksmcml",
) -> list[Path]:
    """Write ``files`` ROOT files below ``out_dir`` that hold ``tracks`` selected tracks together.

    AO2D files are ``<out_dir>/<nnn>/AO2D.root``, as on the GRID; track tables ``<out_dir>/tracks_<nnn>.root``. Each
    file has its own branch of the random sequence, so a file's content depends on the seed, its number and its size
    alone.

    Args:
        out_dir: directory, made if absent.
        tracks: selected tracks of all files together (AO2D files hold further tracks that fail the selection).
        files: number of files.
        fmt: ``ao2d`` for raw tables, ``tracks`` for track tables.
        seed: 0 or more.
        frames: ``DF_`` directories per file; AO2D files get more where a directory would hold over 500,000 tracks,
        because
            each is simulated in memory.
        tree: for track tables, one of :data:`pidml.tracks.TREES`.

    Returns:
        The paths, in order.

    Raises:
        SpecError: an argument is out of range.
        DiskFull: no space is left.
        StoreError: the place is not writable.
    """
    for name, value, lowest in (("tracks", tracks, 1), ("files", files, 1), ("frames", frames, 1), ("seed", seed, 0)):
        if value < lowest:
            raise SpecError(f"{name} is {value}", f"give {lowest} or more")
    if tracks < files * frames:
        raise SpecError(
            f"{tracks} tracks do not fill {files} files of {frames} frames",
            "give more tracks or fewer files and frames",
        )
    if fmt not in ("ao2d", "tracks"):
        raise SpecError(f"no format is called {fmt!r}", "use ao2d or tracks")
    if fmt == "ao2d":
        frames = max(frames, -(-tracks // (files * _TRACKS_PER_RAW_FRAME)))
    paths = []
    seeds = SeedSequence(seed).spawn(files)
    for index, (share, file_seed) in enumerate(zip(split_evenly(tracks, files), seeds, strict=True)):
        first = index * frames + 1
        if fmt == "ao2d":
            path = Path(out_dir, f"{index + 1:03d}", "AO2D.root")
            write_ao2d(path, share, file_seed, frames=frames, first_frame=first)
        else:
            path = Path(out_dir, f"tracks_{index + 1:03d}.root")
            write_track_table(path, share, file_seed, frames=frames, first_frame=first, form=TableFormat(tree))
        paths.append(path)
    return paths
