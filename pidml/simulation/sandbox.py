"""The sandbox GRID: files whose logical file names (LFNs) fix their content.

An LFN reads ``/alice/sim/2026/LHC26sandbox/0/<run>/AOD/<nnn>/AO2D.root``. The file is simulated when asked for, from
run and number alone: every machine gets the same tables. ``/alice/data/2026/LHC26sandbox/<run>/apass1/AOD/<nnn>/…``
names a file that stands for experimental data: without truth, and with a distorted response.
"""

from __future__ import annotations

import re
from pathlib import Path

from numpy.random import SeedSequence

from pidml.errors import InputMissing
from pidml.simulation.ao2d import write_ao2d
from pidml.simulation.distortion import EXPERIMENT
from pidml.simulation.raw_tables import RawFormat

PERIOD = "LHC26sandbox"
TRACKS = 100_000
FRAMES = 4
_LFN = re.compile(
    rf"/alice/(?:sim/2026/{PERIOD}/0/(?P<simulated>[1-9][0-9]{{0,8}})|"
    rf"data/2026/{PERIOD}/(?P<measured>[1-9][0-9]{{0,8}})/apass1)/AOD/(?P<number>[0-9]{{3}})/AO2D\.root"
)
_SEED, _MEASURED_SEED = 2026, 2027


def sandbox_lfns(files: int = 4, run: int = 1, *, experimental: bool = False) -> list[str]:
    """Return the LFNs of the first ``files`` (at most 999) files of a run.

    >>> sandbox_lfns(1, 7)
    ['/alice/sim/2026/LHC26sandbox/0/7/AOD/001/AO2D.root']
    >>> sandbox_lfns(1, 7, experimental=True)
    ['/alice/data/2026/LHC26sandbox/7/apass1/AOD/001/AO2D.root']
    """
    if not (1 <= files <= 999 and 1 <= run <= 999_999_999):
        raise InputMissing(
            f"the sandbox has no {files} files of run {run}", "ask for 1 to 999 files of a run from 1 to 999999999"
        )
    folder = f"data/2026/{PERIOD}/{run}/apass1" if experimental else f"sim/2026/{PERIOD}/0/{run}"
    return [f"/alice/{folder}/AOD/{number:03d}/AO2D.root" for number in range(1, files + 1)]


def is_sandbox_lfn(lfn: str) -> bool:
    """Tell whether ``lfn`` names a file of the sandbox GRID."""
    match = _LFN.fullmatch(lfn)
    return match is not None and match["number"] != "000"


def write_sandbox_file(lfn: str, path: Path | str) -> None:
    """Simulate the file ``lfn`` into ``path`` atomically: 100,000 selected tracks in 4 ``DF_`` directories.

    The tables are equal each time; the bytes are not, because ROOT files hold the time of writing.

    Raises:
        InputMissing: the sandbox GRID has no such file.
        DiskFull: no space is left.
        StoreError: the place is not writable.
    """
    match = _LFN.fullmatch(lfn)
    if match is None or match["number"] == "000":
        raise InputMissing(f"the sandbox GRID has no file {lfn}", f"ask for one like {sandbox_lfns(1)[0]}")
    measured, number = match["measured"] is not None, int(match["number"])
    run = int(match["measured"] or match["simulated"])
    write_ao2d(
        path,
        TRACKS,
        SeedSequence((_MEASURED_SEED if measured else _SEED, run, number)),
        frames=FRAMES,
        first_frame=number * 1000 + 1,
        run=run,
        form=RawFormat(simulation=not measured),
        distortion=EXPERIMENT if measured else None,
    )
