"""Who makes which output of a step on a batch system, so that overlapping runs submit nothing twice.

Two runs overlap where they name some of the same branches (``--branches``), or where two jobs share inputs. Each run
writes down the outputs that it is after and its submissions. While it lives it holds a lock; the next run waits for
it. What a killed run left in the queue is taken over.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from pidml.atomic import explained, write_json

#: Token of a submission → addresses of the outputs that its job makes.
Jobs = dict[str, list[str]]


@dataclass(frozen=True)
class Entry:
    """What a run wrote down.

    Args:
        path: the file that says it.
        job: what it was run for, as it is indexed.
        state: where it keeps what it knows about its jobs.
        system: ``slurm`` or ``htcondor``.
        journal: where the numbers of its submissions are.
        outputs: addresses of the outputs that it is after.
        jobs: its submissions.
    """

    path: Path
    job: str
    state: Path
    system: str
    journal: Path
    outputs: frozenset[str]
    jobs: Jobs

    @property
    def alive(self) -> bool:
        """Whether the run goes on."""
        with _lock_file(self.path) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def wait(self) -> None:
        """Wait until the run has ended, however it ends."""
        with _lock_file(self.path) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)


class Registry:
    """The runs of one step in one store.

    Args:
        folder: of the step, for the files of this class alone.
        job: what the run is for, as it is indexed.
        state: where the run keeps what it knows about its jobs: what tells it from others, and is the same when it is
            repeated.
        system: ``slurm`` or ``htcondor``.
        journal: where the numbers of this run's submissions are.
    """

    def __init__(self, folder: Path, job: str, state: Path, system: str, journal: Path) -> None:
        self.folder = folder
        self.path = folder / f"{hashlib.sha256(str(state).encode()).hexdigest()[:16]}.json"
        self.job = job
        self.state = state
        self.system = system
        self.journal = journal
        self.outputs: frozenset[str] = frozenset()

    @contextmanager
    def held(
        self,
        outputs: Iterable[str],
        take_over: Callable[[list[Entry]], Jobs],
        say: Callable[[str], None],
        forgetful: bool = False,
    ) -> Iterator[None]:
        """Be the only run that makes these outputs; waits for others that make some of them.

        Nobody holds anything while waiting, so that two runs cannot wait for each other.

        Args:
            outputs: addresses.
            take_over: called with what runs that are no more wrote down about some of the outputs; returns what is to
                be written down for this one.
            say: called with a line before waiting.
            forgetful: this run does not know what it submitted when it ran before, and takes that over too.

        Raises:
            DiskFull, StoreError: the folder cannot be written.
        """
        self.outputs = frozenset(outputs)
        with ExitStack() as stack:
            while busy := self._try_to_hold(take_over, stack, forgetful):
                shared = len(busy.outputs & self.outputs)
                say(f"waits for another run that makes {shared} of the {len(self.outputs)} outputs ({busy.path})")
                busy.wait()
            yield

    def _try_to_hold(self, take_over: Callable[[list[Entry]], Jobs], stack: ExitStack, forgetful: bool) -> Entry | None:
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "registry.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = [entry for entry in self._entries() if forgetful or entry.path != self.path]
            others = [entry for entry in found if entry.outputs & self.outputs]
            if busy := next((entry for entry in others if entry.alive), None):
                return busy
            self.write(take_over(others))
            for entry in others:
                if entry.path != self.path:
                    _give_up(entry, self.outputs)
            fcntl.flock(stack.enter_context(_lock_file(self.path)), fcntl.LOCK_EX)
        return None

    def _entries(self) -> Iterator[Entry]:
        return map(_read, sorted(self.folder.glob("*.json")))

    def write(self, jobs: Mapping[str, list[str]]) -> None:
        """Write down the submissions that may be in the queue; before they are submitted.

        Raises:
            DiskFull, StoreError: the file cannot be written.
        """
        _write(Entry(self.path, self.job, self.state, self.system, self.journal, self.outputs, dict(jobs)))

    def forget(self) -> None:
        """Nothing of this run is in the queue any more."""
        self.path.unlink(missing_ok=True)


def submitted_work(store: Path, newest: float) -> set[Path]:
    """Return the work folders in the store of runs that may have jobs in a queue: a rerun and the jobs need them.

    Args:
        store: root of the store.
        newest: runs that wrote nothing down since then, in s since the epoch, are left out.
    """
    entries = [entry for entry in all_entries(store) if entry.path.stat().st_mtime >= newest]
    # the folder of job files may lie elsewhere; what it is called tells of which step it is
    names = {(entry.path.parent.name, entry.journal.parent.name.removesuffix(".work")) for entry in entries}
    return {store / step / f"{digest}.work" for step, digest in names}


def all_entries(root: Path) -> list[Entry]:
    """Return what the runs of all steps in a store wrote down."""
    return [_read(path) for path in sorted((root / ".batch").glob("*/*.json"))]


def _lock_file(path: Path) -> TextIO:
    return path.with_suffix(".lock").open("a")


def _read(path: Path) -> Entry:
    value = json.loads(path.read_text(encoding="utf-8"))
    state, journal = Path(value["state"]), Path(value["journal"])
    return Entry(path, value["job"], state, value["system"], journal, frozenset(value["outputs"]), value["jobs"])


def _write(entry: Entry) -> None:
    value = {"job": entry.job, "state": str(entry.state), "system": entry.system, "journal": str(entry.journal)}
    write_json(entry.path, value | {"outputs": sorted(entry.outputs), "jobs": entry.jobs})


def _give_up(entry: Entry, outputs: frozenset[str]) -> None:
    """Take outputs away from a run that is no more."""
    left = {token: made for token, made in entry.jobs.items() if not outputs & set(made)}
    if rest := entry.outputs - outputs:
        _write(replace(entry, outputs=rest, jobs=left))
    else:
        entry.path.unlink(missing_ok=True)
