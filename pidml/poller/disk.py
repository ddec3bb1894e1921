"""Room on the disk behind the store: what a job needs, and what there is."""

from __future__ import annotations

import shutil
from pathlib import Path

from pidml.batch.disks import bytes_of
from pidml.errors import DiskFull
from pidml.settings import GIB
from pidml.spec import JobSpec


def free_bytes(store: Path) -> int:
    """Return the bytes that may still be written below ``store``, which must exist."""
    return shutil.disk_usage(store).free


def needed_bytes(job: JobSpec) -> int:
    """Return the bytes that a job writes, as the sizes of its files suggest; files on local disks are not copied."""
    return bytes_of((*job.dataset.files, *job.adaptation.files))


def check_room(store: Path, min_free: int, needed: int = 0) -> None:
    """Make sure that ``needed`` bytes can be written and ``min_free`` bytes stay.

    Raises:
        DiskFull: there is less room.
    """
    free = free_bytes(store)
    if free < needed + min_free:
        raise DiskFull(
            f"{free / GIB:.1f} GiB are free for {store}; the job needs {needed / GIB:.1f} GiB, and "
            f"{min_free / GIB:.1f} GiB must stay free",
            "free some space (`pidml gc` lists what no kept job needs), move the store (PIDML_STORE), or change "
            "PIDML_MIN_FREE_GB",
        )


def can_never_fit(store: Path, min_free: int, needed: int) -> bool:
    """Tell whether ``needed`` bytes exceed the whole disk, however empty."""
    return needed + min_free > shutil.disk_usage(store).total
