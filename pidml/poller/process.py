"""A job's processes: started under a guard, waited for without polling, ended without leftovers."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pidml.alicetraint.jobs import JOB_DIR_VARIABLE
from pidml.atomic import explained
from pidml.errors import StoreError
from pidml.poller import guard

#: Seconds between SIGTERM and SIGKILL.
TERM_SECONDS = 10.0
LEFTOVER_SECONDS = 30.0
#: How long one process may take from its last signal to its end before the others are looked at.
ENDING_SECONDS = 1.0
#: A flag of the kernel's, see ``include/linux/sched.h``.
PF_EXITING = 0x4


class JobProcess:
    """The guarded processes of one job; see :mod:`pidml.poller.guard`.

    Args:
        command: program and arguments; no secrets, everybody on the machine can read them.
        env: the environment, ``PIDML_JOB_DIR`` in it.
        cwd: working directory.
        log_file: gets what the processes print, appended.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log_file: Path) -> None:
        reading, lifeline = os.pipe()
        started = [sys.executable, "-I", guard.__file__, str(reading), str(TERM_SECONDS), "--", *command]
        try:
            with explained(log_file), log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    started,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(env),
                    cwd=cwd,
                    start_new_session=True,
                    pass_fds=(reading,),
                )
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(reading)
        self._lifeline: int | None = lifeline
        self.guard_killed = False
        self.started = time.monotonic()
        self.pidfd = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        """Process number of the guard, which is also the job's process group and session."""
        return self._process.pid

    def ended(self) -> bool:
        """Tell whether the job is over."""
        return os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> None:
        """Have the job ended: SIGTERM to its group, SIGKILL to whatever is left after ten seconds."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def kill(self) -> None:
        """Kill the job's process group, its guard too."""
        # The guard is not reaped before `finish`, so the group's number cannot belong to anybody else.
        os.killpg(self._process.pid, signal.SIGKILL)

    def finish(self) -> int:
        """Wait for the end, kill what is left of the group, and return the exit code.

        A signal that ended the job's first process counts as 128 plus its number. ``guard_killed`` tells that the guard
        itself was killed, so that processes of other sessions may be left (:func:`end_leftovers`).
        """
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
        self.kill()
        code = self._process.wait()
        self.guard_killed = code < 0
        os.close(self.pidfd)
        self.end()
        return 128 - code if code < 0 else code


def end_leftovers(job_dir: Path) -> int:
    """Kill processes of an earlier life of a job, known by their environment; return how many there were.

    The guard of a dead poller ends them itself, so there are some only within its grace period, or if guard and poller
    were killed together.

    Raises:
        StoreError: a process cannot be killed (it hangs in the kernel, on a dead network file system for example).
    """
    killed: set[int] = set()
    deadline = time.monotonic() + LEFTOVER_SECONDS
    pause = 0.001
    while found := set(_kill_processes_of(job_dir)):
        killed |= found
        if time.monotonic() > deadline:
            raise StoreError(
                f"processes {sorted(found)} of an earlier run of {job_dir} cannot be ended",
                "they hang in the kernel: look at the mounts they use, or restart the machine",
            )
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    return len(killed)


def _kill_processes_of(job_dir: Path) -> Iterator[int]:
    """Send SIGKILL to every process of this user whose environment names the job; yield their numbers once they ended.

    A process that is ending has given its memory back, its environment with it, but may still hold files and locks. It
    cannot be told whose it was, so that every process in that state is waited for, for a moment.
    """
    mark = f"{JOB_DIR_VARIABLE}={job_dir}".encode()
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    for number in numbers:
        if number == os.getpid():
            continue
        try:
            process = os.pidfd_open(number)
        except OSError:
            continue  # gone
        try:
            # Opened first: the number cannot pass to another process between this look and the signal.
            environment = _environment(number)
            if mark in environment.split(b"\0"):
                signal.pidfd_send_signal(process, signal.SIGKILL)
                _wait_for_end(process)
                yield number
            elif not environment and _is_ending(number):
                _wait_for_end(process)
        except OSError:
            continue  # gone meanwhile, or another user's
        finally:
            os.close(process)


def _environment(number: int) -> bytes:
    try:
        return Path(f"/proc/{number}/environ").read_bytes()
    except ProcessLookupError:
        return b""  # what recent kernels say of a process without memory


def _wait_for_end(pidfd: int) -> None:
    waiting = select.poll()  # not select, which refuses descriptors above 1023
    waiting.register(pidfd, select.POLLIN)
    waiting.poll(1000 * ENDING_SECONDS)


def _is_ending(number: int) -> bool:
    """Tell whether the kernel is taking a process down (``PF_EXITING`` in ``/proc/NUMBER/stat``, see proc(5))."""
    after_name = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
    return bool(int(after_name[6]) & PF_EXITING)
