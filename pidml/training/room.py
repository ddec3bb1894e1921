"""How much memory samples may take: part of what is free where the network is trained, and of the machine's.

What a batch system, a container or the shell grants counts as well as what the machine has: going beyond it would end
the process without a word.
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from pidml.training.plan import Share

logger = logging.getLogger(__name__)

#: Encoded features (rows, encoded), classes (rows,) and, where tracks are weighted, weights (rows,).
Batch = tuple[Tensor, ...]
#: Part of the free memory that samples may take. The rest is for the network, its gradients, and what comes later.
PART = 0.5
CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass
class Room:
    """Bytes on a device that samples may still take."""

    device: torch.device
    left: int

    def take(self, examples: Batch, rows: int) -> Batch | None:
        """Return uninitialised tensors like ``examples`` but with ``rows`` rows, or None if there is no room."""
        size = rows * sum(each.itemsize * each[0].numel() for each in examples)
        if size > self.left:
            return None
        try:
            tensors = room_for(examples, rows, self.device)
        except torch.OutOfMemoryError:
            logger.warning("%s has less memory than it said: %.2f GiB could not be had", self.device, size / 2**30)
            self.left = 0
            return None
        self.left -= size
        return tensors


def room_for(examples: Batch, rows: int, device: torch.device) -> Batch:
    """Return uninitialised tensors like ``examples`` but with ``rows`` rows."""
    return tuple(torch.empty((rows, *each.shape[1:]), dtype=each.dtype, device=device) for each in examples)


def rooms(device: torch.device, share: Share, granted: int | None = None, exactly: int | None = None) -> list[Room]:
    """Return where samples may be held, best place first: the device that trains, then the machine's memory.

    Args:
        device: where the network is trained.
        share: processes that train together share the machine's memory, each on a device of its own; where batches
            have to be taken in parts, samples get as much less.
        granted: bytes of main memory that this process and its companions may take in all; None for no such limit.
        exactly: bytes that samples may take in each place, whatever is free.
    """
    main, places = torch.device("cpu"), []
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        places.append(Room(device, int(PART * (free - torch.cuda.memory_allocated(device)) / share.split)))
    places.append(Room(main, int(PART * free_memory(granted, share.world) / share.split)))
    return places if exactly is None else [Room(place.device, exactly) for place in places]


def free_memory(granted: int | None = None, sharing: int = 1) -> int:
    """Return the bytes of main memory that this process may still take.

    Args:
        granted: what it and its companions may have in all, for example by a request to a batch system.
        sharing: number of these processes, this one included.
    """
    own = psutil.Process().memory_info()
    left: list[int] = [each // sharing for each in (psutil.virtual_memory().available, *group_headroom())]
    if granted is not None:
        left.append(granted // sharing - own.rss)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        left.append(soft - own.vms)
    return max(0, min(left))


def group_headroom(root: Path = CONTROL_GROUPS, own: Path = _OWN_GROUPS) -> Iterator[int]:
    """Yield the bytes that each control group of this process still may take, where one has a limit.

    Args:
        root: where control groups are mounted.
        own: file that names those of this process, as ``/proc/self/cgroup``.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            place, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            place, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be that of the host, while what is mounted begins at the group itself.
        group = place / path.strip("/")
        for folder in (group, *group.parents):
            if (headroom := _headroom(folder, *names)) is not None:
                yield headroom
            if folder == place:
                break


def _headroom(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None  # no such group, or not readable: then the machine's memory is what counts
    # Pages of files that nothing uses count as used, but are given back when memory is needed.
    return None if most == "max" else int(most) - used + int(counts.get(reclaimable, 0))
