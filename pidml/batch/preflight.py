"""Checks before anything is submitted: commands, partition, limits, a store that workers can see, room on the disk."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pidml.atomic import write_text
from pidml.batch import htcondor, slurm
from pidml.batch.commands import require_commands, run_command
from pidml.batch.site import Site
from pidml.errors import BatchError, BatchUnavailable, ConfigError, DiskFull, ToolMissing

#: File systems that exist on one machine only.
_LOCAL_FILE_SYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}
_MINIMUM_FREE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Partition:
    """A Slurm partition: its name, whether it is the default, its longest time in h (0: none) and its GPUs."""

    name: str
    default: bool
    max_hours: float
    gpus: bool


def check_site(site: Site, store: Path, hours: float, gpus: int = 0) -> Site:
    """Check what can be known before jobs are submitted.

    Args:
        site: the profile.
        store: root of the store.
        hours: time that the jobs ask for, in h.
        gpus: GPUs that each job asks for.

    Returns:
        The profile, with ``max_time`` lowered to the partition's limit.

    Raises:
        ToolMissing: the scheduler's commands are not here.
        ConfigError: a partition that does not exist, a time above its limit, a store that workers cannot see.
        DiskFull: there is no room for outputs.
    """
    check_store(site, store)
    if site.workflow == "htcondor":
        require_commands(htcondor.COMMANDS, "HTCondor")
    if site.workflow == "slurm":
        require_commands(slurm.COMMANDS, "Slurm")
        return _within_partition(site, hours, gpus)
    return site


def check_store(site: Site, store: Path) -> None:
    """Check that the store can be written and that workers see it.

    Raises:
        ConfigError: it lies outside the folders that the profile calls shared, or in memory.
        DiskFull, StoreError: it cannot be written.
    """
    probe = store / ".probe"
    write_text(probe, "0" * 65536)
    probe.unlink()
    if (free := shutil.disk_usage(store).free) < _MINIMUM_FREE:
        raise DiskFull(
            f"{store}: only {free // 1024 // 1024} MB left", "free some space or move the store with PIDML_STORE"
        )
    if site.workflow == "local":
        return
    place = store.resolve()
    if site.shared:
        if not any(place.is_relative_to(Path(root).expanduser().resolve()) for root in site.shared):
            raise ConfigError(
                f"the store {store} is not on a file system that workers share ({', '.join(site.shared)})",
                "set PIDML_STORE to a folder there, or correct `shared` in the profile",
            )
    elif file_system(place) in _LOCAL_FILE_SYSTEMS:
        raise ConfigError(
            f"the store {store} lies in this machine's memory ({file_system(place)}); workers cannot see it",
            "set PIDML_STORE to a folder on the cluster's shared file system",
        )


def file_system(path: Path) -> str:
    """Return the type of the file system that holds ``path``, as in ``/proc/mounts``; "" if unknown."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    best = ("", "")
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def partitions() -> list[Partition]:
    """Return the partitions that ``sinfo`` shows; empty if it cannot say.

    Raises:
        BatchUnavailable: Slurm does not answer.
    """
    try:
        out = run_command(["sinfo", "--noheader", "--format=%P|%l|%G"])
    except ToolMissing:
        return []
    found: dict[str, Partition] = {}
    for line in out.splitlines():
        name, limit, gres = (*line.split("|"), "", "")[:3]
        gpus = "gpu" in gres or (name in found and found[name].gpus)
        found[name] = Partition(name.rstrip("*"), name.endswith("*"), parse_limit(limit), gpus)
    return list(found.values())


def parse_limit(text: str) -> float:
    """Return a Slurm time limit in h; 0 for none.

    >>> parse_limit("1-12:00:00"), parse_limit("30:00"), parse_limit("infinite")
    (36.0, 0.5, 0.0)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if match is None:
        return 0.0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 24 + hours + minutes / 60 + seconds / 3600


def _within_partition(site: Site, hours: float, gpus: int) -> Site:
    known = partitions()
    name = (site.gpu_partition if gpus else "") or site.partition
    if not known:
        return site
    names = ", ".join(each.name for each in known)
    chosen = [each for each in known if (each.name == name if name else each.default)]
    if not chosen:
        what = f"Slurm has no partition {name!r}" if name else "Slurm has no default partition"
        raise ConfigError(what, f"set `partition` in the profile; there are: {names}")
    limit = max(each.max_hours for each in chosen)
    if limit and hours > limit:
        raise ConfigError(
            f"jobs ask for {hours:g} h, partition {chosen[0].name} allows {limit:g} h",
            "lower `time` under resources in the job, or name another partition",
        )
    if gpus and not any(each.gpus for each in chosen):
        raise ConfigError(f"jobs ask for {gpus} GPU, partition {chosen[0].name} has none", f"partitions: {names}")
    bound = min(filter(None, (site.max_time, limit)), default=0.0)
    return Site(**{**vars(site), "max_time": bound})


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
