"""What the real schedulers of the tests have in common: daemons that are started, asked, waited for and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Daemons:
    """Daemons of a scheduler and how to reach them.

    Args:
        folder: for configuration, state and logs; its path must be short, as sockets lie in it.
    """

    #: As in ``--workflow``.
    kind: str
    #: The command that hands a job over, and those that tell about jobs.
    submits: str
    tells: tuple[str, ...]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    def jobs(self, store: Path) -> list[tuple[str, str]]:
        """Return (name, state) of the jobs of a store's workflows, oldest first, those that have ended too."""
        digests = [path.name.removesuffix(".work") for path in store.glob("*/*.work")]
        return [(name, state) for name, state in self._all_jobs() if any(digest in name for digest in digests)]

    def _all_jobs(self) -> list[tuple[str, str]]:
        raise NotImplementedError

    def processes(self) -> list[int]:
        """Return the numbers of the processes of jobs that run now, one per job: its script."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Take a job out of the queue as its owner would."""
        raise NotImplementedError

    def memory_asked(self, store: Path) -> list[int]:
        """Return the memory in MB that each job of a store's workflows asked for, oldest first."""
        raise NotImplementedError

    def ask(self, *command: str) -> str | None:
        """Return what a command prints; None if it fails."""
        try:
            done = subprocess.run(
                command, env=os.environ | self.environment, capture_output=True, text=True, check=False, timeout=60
            )
        except FileNotFoundError:
            return None
        return done.stdout if done.returncode == 0 else None

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until something is true; a daemon that ended is reported with its log."""
        end = time.monotonic() + seconds
        while not condition():
            for process in self._processes:
                if process.poll() is not None:
                    raise AssertionError(f"{process.args} ended:\n{self._logs()}")
            assert time.monotonic() < end, f"waited too long:\n{self._logs()}"
            time.sleep(0.1)

    def _logs(self) -> str:
        logs = [*self.folder.glob("*.log"), *self.folder.glob("log/*Log")]
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)

    def _start(self, *command: str, inside: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a daemon that ends with the tests, even if these are killed; ``inside`` is a command that runs it."""
        environment = os.environ | self.environment
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        whole = [*inside, "setpriv", "--pdeathsig", "TERM", "--", program, *command[1:]]
        with (self.folder / f"{Path(command[0]).name}.out.log").open("wb") as out:
            process = subprocess.Popen(whole, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self._processes.append(process)
        return process

    def _end(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=20)


@contextmanager
def short_folder(prefix: str) -> Iterator[Path]:
    """Make a folder whose path is short enough for sockets; it is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
