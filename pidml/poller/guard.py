"""The guard of a job's processes: started by the poller, it starts the job and makes sure that none of it outlives us.

Run as a program with nothing but the standard library, so that it is there within milliseconds:

    python -I guard.py LIFELINE_FD GRACE_SECONDS -- COMMAND …

``LIFELINE_FD`` is the reading end of a pipe whose writing end only the poller holds. The pipe's end of file means that
the poller is gone, however it died, and the job's processes are ended. The guard leads the session and process group of
the job, and adopts what the job's processes leave behind (``PR_SET_CHILD_SUBREAPER``), so that processes which put
themselves into a session of their own are found too. When the job's first process has ended, so are the others, and the
guard ends as that process did.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CANNOT_START = 127


def main(arguments: list[str]) -> int:
    """Guard one job, and return the exit code of its first process (128 + signal if a signal ended it)."""
    lifeline, grace, _, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # The group gets the signals meant for the job; its guard stays to the end.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    if select.select([int(lifeline)], [], [], 0)[0]:
        return CANNOT_START  # the poller is gone already; its next life starts the job
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        _become(command, libc, int(lifeline), guard)
    code = _wait(child, int(lifeline), float(grace))
    end_descendants()
    return code


def _become(command: list[str], libc: ctypes.CDLL, lifeline: int, guard: int) -> None:
    """Become the job's first process, which dies with the guard."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:
        os._exit(CANNOT_START)  # it died before it could be watched
    os.close(lifeline)
    try:
        os.execvpe(command[0], command, os.environ)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    os._exit(CANNOT_START)


def _wait(child: int, lifeline: int, grace: float) -> int:
    process = os.pidfd_open(child)
    poller_gone = False
    while True:
        watched = [process] if poller_gone else [process, lifeline]
        ready, _, _ = select.select(watched, [], [], grace if poller_gone else None)
        if process in ready:
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
        if poller_gone:
            os.kill(child, signal.SIGKILL)
        elif lifeline in ready:
            poller_gone = True
            os.killpg(0, signal.SIGTERM)


def end_descendants() -> None:
    """Kill every descendant, adopted ones included, until none is left."""
    pause = 0.001
    while True:
        found = list(descendants(os.getpid()))
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return  # nobody is left
        time.sleep(pause)  # a process in an uninterruptible wait dies when that wait ends
        pause = min(2 * pause, 1.0)


def descendants(root: int) -> Iterator[int]:
    """Yield the process numbers of all descendants of ``root``, from ``/proc``."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The second field is the program's name in parentheses and may hold anything.
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    queue = [root]
    while queue:
        found = children.get(queue.pop(), [])
        yield from found
        queue += found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
