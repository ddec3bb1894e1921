"""Room for what is to be written: the file system behind a folder, what is free there, and what a quota leaves."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pidml.spec.data_sections import InputFile

#: Bytes needed per byte of AO2D file: the file itself and the tables made of it.
BYTES_PER_INPUT_BYTE = 1.15
_KIB = 1024
#: Longest time for one command, in s.
_SECONDS = 20.0


@dataclass(frozen=True)
class Mount:
    """A mounted file system: its device, where it is mounted, and its type."""

    device: str
    point: Path
    kind: str


def mount_of(path: Path) -> Mount:
    """Return the file system that holds ``path``, as in ``/proc/mounts``; fields are empty if unknown."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Mount("", Path("/"), "")
    best = Mount("", Path("/"), "")
    for line in lines:
        device, point, kind, *_ = (word.replace("\\040", " ") for word in line.split(" "))
        if path.is_relative_to(point) and len(point) >= len(str(best.point)):
            best = Mount(device, Path(point), kind)
    return best


@dataclass(frozen=True)
class Quota:
    """What a quota allows.

    Args:
        used: bytes.
        limit: bytes.
        command: the command that said so.
    """

    used: int
    limit: int
    command: str

    @property
    def left(self) -> int:
        """Bytes that may still be written."""
        return max(0, self.limit - self.used)


def quota_of(folder: Path) -> Quota | None:
    """Return this user's quota on the file system of a folder; None where no command tells of one.

    AFS is asked with ``fs listquota``, EOS with ``eos quota``, others with ``quota``.
    """
    place = folder.resolve()
    mount = mount_of(place)
    if mount.kind == "afs" or place.is_relative_to("/afs"):
        return parse_listquota(_said("fs", "listquota", "-path", str(place)))
    if place.is_relative_to("/eos"):
        return parse_eos(_said("eos", "quota", "ls", "-m", "-p", str(place)), getpass.getuser())
    return parse_quota(_said("quota", "-w", "-p"), mount.device)


def _said(*command: str) -> str:
    """Return what a command prints; "" where it does not exist or has no answer: a quota need not be known."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout  # `quota` fails where a quota is exceeded, and says so here


def parse_listquota(out: str) -> Quota | None:
    """Return the quota in the output of ``fs listquota``: volume, quota and use in KiB.

    >>> parse_listquota('''Volume Name                    Quota       Used %Used   Partition
    ... user.somebody               10000000    4000000   40%         62%''').left // 1024
    6000000
    """
    for line in out.splitlines()[1:]:
        words = line.split()
        if len(words) >= 3 and words[1].isdigit() and words[2].isdigit():
            return Quota(int(words[2]) * _KIB, int(words[1]) * _KIB, "fs listquota")
    return None


def parse_eos(out: str, user: str) -> Quota | None:
    """Return a user's quota in the output of ``eos quota ls -m``: lines of ``key=value``, in bytes.

    >>> parse_eos("quota=node uid=me space=/eos/user/ usedlogicalbytes=25 maxlogicalbytes=100", "me").left
    75
    """
    for line in out.splitlines():
        values = dict(re.findall(r"(\w+)=(\S+)", line))
        limit = values.get("maxlogicalbytes", "0")
        if values.get("uid") == user and limit.isdigit() and int(limit):
            return Quota(int(values.get("usedlogicalbytes", "0")), int(limit), "eos quota")
    return None


def parse_quota(out: str, device: str) -> Quota | None:
    """Return the quota on a device in the output of ``quota -w -p``: use and limits in KiB; the hard limit counts.

    >>> parse_quota('''Disk quotas for user somebody (uid 1000):
    ...      Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
    ...      nas:/home  900*  800  1000  1700000000  7  0  0  0''', "nas:/home").left // 1024
    100
    """
    for line in out.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0] == device:
            used, soft, hard = (int(word.rstrip("*")) if word.rstrip("*").isdigit() else 0 for word in words[1:4])
            if hard or soft:
                return Quota(used * _KIB, (hard or soft) * _KIB, "quota")
    return None


def room(folder: Path) -> tuple[int, str]:
    """Return the bytes that may still be written below an existing folder, and what sets that limit."""
    free, quota = shutil.disk_usage(folder).free, quota_of(folder)
    if quota is not None and quota.left < free:
        return quota.left, f"your quota, says `{quota.command}`"
    return free, "the disk"


def bytes_of(files: Iterable[InputFile]) -> int:
    """Return the bytes that fetching some files and making tables of them writes, as far as their sizes are known.

    Files on local disks are not counted: they are linked where that is possible.
    """
    return int(BYTES_PER_INPUT_BYTE * sum(file.size or 0 for file in files if not _is_local(file.path)))


def _is_local(path: str) -> bool:
    return path.startswith("file:") or (path.startswith("/") and not path.startswith("/alice/"))
