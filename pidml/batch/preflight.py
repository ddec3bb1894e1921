"""Checks before anything is submitted: commands, partition, limits, a store that workers can see, room on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from pidml.atomic import write_text
from pidml.batch import htcondor, slurm
from pidml.batch.commands import require_commands, run_command
from pidml.batch.disks import mount_of, room
from pidml.batch.limits import Request, within_limits
from pidml.batch.site import Site
from pidml.errors import BatchError, BatchUnavailable, ConfigError, DiskFull

#: File systems that exist on one machine only.
_LOCAL_FILE_SYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}
_MIB = 1024 * 1024
_MINIMUM_FREE = 64 * _MIB


def check_site(site: Site, store: Path, request: Request | None = None, needed: int = 0) -> Site:
    """Check what can be known before jobs are submitted.

    Args:
        site: the profile.
        store: root of the store.
        request: what each job asks for; None looks at the place alone.
        needed: bytes that the jobs will write, as far as that is known.

    Returns:
        The profile, with ``max_time`` and ``max_memory`` lowered to what there is.

    Raises:
        ToolMissing: the scheduler's commands are not here.
        ConfigError: a partition that does not exist, a limit that is exceeded, a store that workers cannot see.
        DiskFull: there is no room for outputs.
        BatchError: the scheduler does not answer.
    """
    check_store(site, store, needed)
    if site.workflow == "htcondor":
        require_commands(htcondor.COMMANDS, "HTCondor")
    if site.workflow == "slurm":
        require_commands(slurm.COMMANDS, "Slurm")
    return site if request is None or site.workflow == "local" else within_limits(site, request)


def check_store(site: Site, store: Path, needed: int = 0) -> None:
    """Check that the store can be written, has room, and that workers see it; likewise the folder of job files.

    Args:
        site: the profile.
        store: root of the store.
        needed: bytes that the jobs will write, as far as that is known.

    Raises:
        ConfigError: it lies outside the folders that the profile calls shared, or in memory.
        DiskFull, StoreError: it cannot be written, or has no room.
    """
    _check_room(store, needed, "move the store with PIDML_STORE")
    if site.workflow == "local":
        return
    if site.submit_dir:
        _check_room(Path(site.submit_dir).expanduser(), 0, "name another `submit_dir` in a copy of the profile")
    place = store.resolve()
    if site.shared:
        if not any(place.is_relative_to(Path(root).expanduser().resolve()) for root in site.shared):
            raise ConfigError(
                f"the store {store} is not on a file system that workers share ({', '.join(site.shared)})",
                "set PIDML_STORE to a folder there, or correct `shared` in the profile",
            )
    elif (kind := mount_of(place).kind) in _LOCAL_FILE_SYSTEMS:
        raise ConfigError(
            f"the store {store} lies in this machine's memory ({kind}); workers cannot see it",
            "set PIDML_STORE to a folder on the cluster's shared file system",
        )


def _check_room(folder: Path, needed: int, otherwise: str) -> None:
    """Write a little to a folder and see that ``needed`` bytes, and some more, fit."""
    probe = folder / f".probe-{os.getpid()}"
    write_text(probe, "0" * 65536)
    probe.unlink(missing_ok=True)
    free, limit = room(folder)
    if free < needed + _MINIMUM_FREE:
        wanted = f", the job needs {needed // _MIB} MB" if needed else ""
        raise DiskFull(f"{folder}: only {free // _MIB} MB left ({limit}){wanted}", f"free some space, or {otherwise}")


def scheduler_answers(site: Site) -> None:
    """Check that the scheduler answers at all.

    Raises:
        BatchUnavailable, ToolMissing: it does not.
    """
    command = {"slurm": ["sinfo", "--noheader"], "htcondor": ["condor_q", "-totals"]}.get(site.workflow)
    if command is not None:
        try:
            run_command(command)
        except BatchError as error:
            raise BatchUnavailable(
                f"the scheduler does not answer: {error.what}", "try again later, or --workflow local"
            ) from error
