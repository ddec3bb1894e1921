"""Several processes that train together, one per device: the caller's own, and others that never outlive it.

Each of the others is a Python of its own that is told by standard input what to do. It ends when that pipe closes,
which the operating system sees to however the caller ends. Processes meet through a file in a temporary folder and talk
over the loopback interface alone.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from pidml.errors import OutOfMemory, PidmlError, TrainingError
from pidml.training.memory import memory_ran_out

#: Longest wait of a process for another one: between two batches all of them do about the same.
_TIMEOUT = timedelta(minutes=30)
_END_SECONDS = 20.0
_PROGRAM = f"from {__name__} import main; main()"
_INTERFACES = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Member:
    """One of several processes that train together.

    Attributes:
        rank: its number; 0 is the caller's.
        world: how many there are.
        folder: where they meet, and where one that fails leaves its error.
        threads: threads that each computes with.
    """

    rank: int
    world: int
    folder: Path
    threads: int

    @property
    def error_file(self) -> Path:
        """Where this process leaves its error."""
        return self.folder / f"error-{self.rank}.pickle"

    @property
    def ready_file(self) -> Path:
        """What this process makes when it has started."""
        return self.folder / f"ready-{self.rank}"


class Environment(LightningEnvironment):
    """Tells Lightning that processes were started already, and which one this is."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning has nothing to start."""
        return True

    def local_rank(self) -> int:
        """Return the number of this process."""
        return self.member.rank


@contextmanager
def joined(member: Member, backend: str) -> Iterator[None]:
    """Belong to the group of processes for the time of a training."""
    # Without a number of threads in the environment, Lightning would put one there for good.
    meanwhile = _INTERFACES | {"OMP_NUM_THREADS": str(member.threads)}
    before = {name: os.environ.get(name) for name in meanwhile}
    threads = torch.get_num_threads()
    os.environ.update(meanwhile)
    torch.set_num_threads(member.threads)
    store = torch.distributed.FileStore(  # type: ignore[attr-defined]
        str(member.folder / "meeting"), member.world
    )
    try:
        torch.distributed.init_process_group(
            backend, store=store, rank=member.rank, world_size=member.world, timeout=_TIMEOUT
        )
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextmanager
def companions(world: int, work: Callable[[Member], object]) -> Iterator[Member]:
    """Start ``world − 1`` processes that call ``work``, which can be pickled; yield what this process is among them.

    Raises:
        PidmlError: what went wrong in another process, if that is why this one failed.
    """
    with tempfile.TemporaryDirectory(prefix="pidml-train-") as folder:
        threads = max(1, torch.get_num_threads() // world)
        members = [Member(rank, world, Path(folder), threads) for rank in range(world)]
        others = [_started(pickle.dumps((work, member))) for member in members[1:]]
        try:
            _meet(others, members[1:])
            yield members[0]
            _await(others, members[1:])
        except Exception as error:
            if isinstance(error, PidmlError) or memory_ran_out(error):
                raise
            if told := _told(others, members[1:]):
                raise told from error
            raise
        finally:
            _end(others)


def _started(request: bytes) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE)
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it failed on its way; what it was is found out when it is missed
        process.stdin.write(request)
        process.stdin.flush()
    return process


def _meet(others: list[subprocess.Popen[bytes]], members: list[Member]) -> None:
    """Wait until the others have started: nobody would tell the group of one that never comes."""
    for process, member in zip(others, members, strict=True):
        while not member.ready_file.exists():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
                raise _error(member, process)


def _await(others: list[subprocess.Popen[bytes]], members: list[Member]) -> None:
    """Wait until the others are done, too."""
    for process, member in zip(others, members, strict=True):
        if process.wait(_TIMEOUT.total_seconds()) != 0:
            raise _error(member, process)


def _told(others: list[subprocess.Popen[bytes]], members: list[Member]) -> PidmlError | None:
    """Return the error of another process, if one ended or ends soon: its absence is what this one has noticed."""
    until = time.monotonic() + _END_SECONDS
    while time.monotonic() < until:
        for process, member in zip(others, members, strict=True):
            if process.poll():
                return _error(member, process)
        with suppress(subprocess.TimeoutExpired):
            others[0].wait(0.1)
    return None


def _error(member: Member, process: subprocess.Popen[bytes]) -> PidmlError:
    if member.error_file.is_file():
        error: PidmlError = pickle.loads(member.error_file.read_bytes())
        return error
    return TrainingError(
        f"process {member.rank} of the {member.world} that train together ended with status {process.returncode}",
        "see the log above; the next run goes on from the last checkpoint",
    )


def _end(others: list[subprocess.Popen[bytes]]) -> None:
    for process in others:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
    for process in others:
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _leave_with_caller() -> None:
    """End this process once its standard input closes, whatever it is doing."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


def main() -> None:
    """Do what standard input says, as one of several processes; an error is left for the caller."""
    work, member = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_leave_with_caller, daemon=True).start()
    try:
        member.ready_file.touch()
        work(member)
    except Exception as error:  # whatever it is, the caller has to know it
        told = error if isinstance(error, PidmlError) else TrainingError(f"process {member.rank}: {error}")
        if memory_ran_out(error):
            told = OutOfMemory(f"process {member.rank}: {error}")
        member.error_file.write_bytes(pickle.dumps(told))
        raise
