"""Which GPUs a training uses: those that it was given, and never one that another job on this machine holds.

A device is held by a lock on a file named after its UUID. The operating system drops the lock when the holder and its
children are gone, however they ended. What a batch system or a person put into ``CUDA_VISIBLE_DEVICES`` is honoured.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pidml.errors import ConfigError, GpuUnavailable

#: One place per machine, whatever ``TMPDIR`` a job was given.
LOCKS = Path("/tmp/pidml-gpus")  # noqa: S108 - shared between users on purpose; files are opened without following links
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Values of it that hide everything: a person's, Slurm's, and what HTCondor gives to a job that asked for no GPU.
_NONE = ("", "-1", "NoDevFiles", "10000")
#: What the names of a GPU's parts begin with (multi-instance GPU), old and new.
_MIG = "MIG-"
Accelerator = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Gpu:
    """A GPU: its number as ``nvidia-smi`` counts (None for a MIG instance), and its UUID, the same to every process."""

    index: int | None
    uuid: str

    def __str__(self) -> str:
        return self.uuid if self.index is None else f"{self.index} ({self.uuid})"


def installed() -> list[Gpu]:
    """Return the GPUs that the driver shows; empty without a driver."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(",") for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [Gpu(int(row[0]), row[1].strip()) for row in rows if len(row) == 2 and row[0].strip().isdigit()]


def chosen(gpus: Sequence[Gpu], names: str, source: str, instances: bool = True) -> list[Gpu]:
    """Return the GPUs that a list such as ``0,1`` or ``GPU-1a2b,GPU-3c4d`` names, in its order.

    Args:
        gpus: those that there are.
        names: numbers or (beginnings of) UUIDs, separated by commas.
        source: where the list comes from, for error texts.
        instances: whether a name ``MIG-…`` is taken as it is: ``nvidia-smi`` lists whole GPUs only, and such names come
            from batch systems.

    Raises:
        ConfigError: one of them does not exist, or is named twice.

    >>> chosen([Gpu(0, "GPU-aa"), Gpu(1, "GPU-bb")], "1", "--gpus")
    [Gpu(index=1, uuid='GPU-bb')]
    """
    found: list[Gpu] = []
    for name in (part.strip() for part in names.split(",") if part.strip()):
        matching = [gpu for gpu in gpus if name == str(gpu.index) or (name[:1].isalpha() and gpu.uuid.startswith(name))]
        if instances and name.startswith(_MIG) and not matching:
            matching = [Gpu(None, name)]
        if len(matching) != 1:
            there = ", ".join(map(str, gpus)) or "none"
            raise ConfigError(f"{source}: there is no GPU {name!r}", f"this machine has: {there}")
        found += matching
    if len(set(found)) != len(found):
        raise ConfigError(f"{source}: {names!r} names a GPU twice", "name each one once")
    return found


def offered(requested: str, environment: MutableMapping[str, str]) -> list[Gpu]:
    """Return the GPUs among which a training may choose.

    Args:
        requested: a list as in :func:`chosen`; empty leaves all that are visible.
        environment: ``CUDA_VISIBLE_DEVICES`` restricts what is visible.

    Raises:
        ConfigError: a GPU is named that does not exist or is not visible.
    """
    gpus = installed()
    if VISIBLE in environment:
        names = environment[VISIBLE].strip()
        gpus = [] if names in _NONE else chosen(gpus, names, VISIBLE)
    return chosen(gpus, requested, "--gpus", instances=VISIBLE not in environment) if requested else gpus


@contextmanager
def reserved(
    accelerator: Accelerator,
    count: int = 1,
    requested: str = "",
    environment: MutableMapping[str, str] = os.environ,
    locks: Path = LOCKS,
) -> Iterator[list[Gpu]]:
    """Hold GPUs for the time of a training and make them the only ones that it sees.

    Sets ``CUDA_VISIBLE_DEVICES``, so it must be entered before CUDA is used in this process.

    Args:
        accelerator: ``auto`` takes GPUs if ``count`` of them are free, else the processor; ``gpu`` insists;
            ``cpu`` takes none.
        count: how many.
        requested: GPUs named by a person; then they must be had.
        environment: read and changed for the time of the training.
        locks: folder of the locks.

    Yields:
        The GPUs held; empty for a training on the processor.

    Raises:
        GpuUnavailable: there are too few, or others hold them.
        ConfigError: a GPU is named that does not exist.
    """
    with ExitStack() as stack:
        held: list[Gpu] = []
        busy: list[str] = []
        gpus = _usable(accelerator, requested, environment)
        if len(gpus) >= count:
            for gpu in gpus:
                if len(held) < count:
                    holder = _hold(gpu, locks, stack)
                    held += [gpu] if holder is None else []
                    name = gpu.uuid if gpu.index is None else gpu.index
                    busy += [] if holder is None else [f"{name} ({holder})"]
        if len(held) < count and accelerator != "cpu":
            stack.close()
            held = []
            if accelerator == "gpu" or requested:
                raise _unavailable(count, gpus, busy)
            if gpus:
                _say(_unavailable(count, gpus, busy).what)
        before = environment.get(VISIBLE)
        environment[VISIBLE] = ",".join(gpu.uuid for gpu in held)
        try:
            yield held
        finally:
            if before is None:
                del environment[VISIBLE]
            else:
                environment[VISIBLE] = before


def _usable(accelerator: Accelerator, requested: str, environment: MutableMapping[str, str]) -> list[Gpu]:
    """Return the GPUs offered; none, with a line in the log, where nobody insists and what was given is not there."""
    if accelerator == "cpu":
        return []
    try:
        return offered(requested, environment)
    except ConfigError as error:
        if accelerator == "gpu" or requested:
            raise
        _say(f"{error.what} ({error.hint})")
        return []


def _say(why: str) -> None:
    print(f"no GPU is used: {why}", flush=True)  # noqa: T201 - step log


def _unavailable(count: int, gpus: Sequence[Gpu], busy: Sequence[str]) -> GpuUnavailable:
    if len(gpus) < count:
        return GpuUnavailable(
            f"the training asks for {count} GPU, {len(gpus)} can be used here",
            "lower training.devices, or allow the processor with training.accelerator: auto",
        )
    return GpuUnavailable(
        f"the training asks for {count} GPU; in use by others: {', '.join(busy)}",
        "wait, name others with --gpus, or allow the processor with training.accelerator: auto",
    )


def _hold(gpu: Gpu, locks: Path, stack: ExitStack) -> str | None:
    """Lock a GPU until ``stack`` is closed; return who holds it if that is somebody else."""
    with contextlib.suppress(FileExistsError):
        locks.mkdir(parents=True)
        locks.chmod(0o1777)
    try:
        descriptor = _open(locks / f"{gpu.uuid.replace('/', '_')}.lock")
    except PermissionError:
        return "another user"  # the file's owner keeps others out
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
    with contextlib.suppress(OSError):  # who holds it is for people; a file that may only be read serves as well
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
    return None


def _open(path: Path) -> int:
    """Open a lock file that any user may have made.

    It is opened without ``O_CREAT`` if it is there: with that, the kernel refuses files of other users in folders that
    everybody may write to (``fs.protected_regular``).

    Raises:
        PermissionError: its owner lets nobody else read it.
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            try:
                return os.open(path, flags | os.O_RDWR)
            except PermissionError:
                return os.open(path, flags | os.O_RDONLY)
        except FileNotFoundError:
            pass
        with contextlib.suppress(FileExistsError):  # another process was quicker: open what it made
            descriptor = os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(descriptor, 0o666)  # whatever the umask says
            return descriptor
