"""What in a store no kept job needs, and its removal."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pidml.alicetraint.jobs import JobDirectory, all_jobs, jobs_dir
from pidml.alicetraint.outbox import waiting
from pidml.atomic import is_held, is_temporary, temporary_sibling
from pidml.batch.registry import submitted_work
from pidml.errors import StoreError
from pidml.identity import DIGEST_LENGTH
from pidml.store import Store, index_key

#: An output, its log, its work folder, or a temporary sibling of one.
_OWN = re.compile(rf"\.?(?P<digest>[0-9a-f]{{{DIGEST_LENGTH}}})(?P<kind>\.log|\.work|\.tmp-\w+(\.\w+)?)?$")
_DIGEST = re.compile(rf"[0-9a-f]{{{DIGEST_LENGTH}}}")
#: What was touched more recently than this may be in the making.
MIN_AGE_SECONDS = 24 * 3600.0
#: Jobs that a batch system was given longer ago than this are neither waiting nor running.
LONGEST_QUEUE_SECONDS = 30 * 86_400.0


@dataclass(frozen=True)
class Garbage:
    """Something that can go.

    Attributes:
        path: file or folder.
        size: in bytes, all files below it.
        reason: why nothing needs it.
    """

    path: Path
    size: int
    reason: str

    def remove(self) -> None:
        """Remove it. A folder goes by renaming first, so that it never exists incomplete; what a kill leaves of it is
        a temporary sibling, which the next collection finds.
        """
        if not self.path.is_dir():
            self.path.unlink(missing_ok=True)
            return
        hidden = self.path
        if not is_temporary(hidden):
            hidden = temporary_sibling(self.path)
            self.path.rename(hidden)
        shutil.rmtree(hidden)


def find_garbage(
    store: Store,
    drop: Collection[str] = (),
    min_age: float = MIN_AGE_SECONDS,
    tasks_older_than: float | None = None,
) -> list[Garbage]:
    """Return what no kept job needs: outputs of earlier settings and of dropped jobs, and leftovers of kills.

    The order is that in which it is to be removed: whatever says that something else is garbage comes last, so that a
    collection that was killed is finished by the next one.

    Args:
        store: the store.
        drop: jobs that are not kept, as :meth:`pidml.store.Store.jobs` names them or as they were given to a run.
        min_age: what changed less than this many seconds ago is left alone: it may be in the making.
        tasks_older_than: tasks of the server whose end it has known for longer than this many seconds, with nothing
            left to send, are dropped too, with what is known of them here. ``None`` keeps them.

    Raises:
        UnknownJob: a job to drop has not run in this store.
        StoreError: the index of a job, or the state of a task, is damaged.
    """
    before = -math.inf if tasks_older_than is None else time.time() - tasks_older_than
    ended = list(_ended(store.root, before))
    dropped = {store.name_of(job) for job in drop} | {name for job in ended for name in _index_of(store, job)}
    kept: dict[str, set[str]] = {}
    for job in store.jobs():
        for step, digests in store.read_index(job).items():
            kept.setdefault(step, set()).update(() if job in dropped else digests)
    newest = time.time() - min_age
    found = list(_partials(store.root, newest))
    submitted = submitted_work(store.root, time.time() - LONGEST_QUEUE_SECONDS)
    for step in sorted(kept):
        found += [each for each in _of_step(store.root / step, kept[step], newest) if each.path not in submitted]
    found += _temporaries(store.root, newest)
    found += [Garbage(store.index_file(job), 0, "dropped job") for job in sorted(dropped)]
    found += [Garbage(job.path, _size(job.path), "the server has all of this task") for job in ended]
    return found + list(_superseded(store.root, before))


def check_quiet(store: Store) -> None:
    """Make sure that it is known what every unfinished task needs.

    Raises:
        StoreError: a task has been claimed and has not begun; it may need what looks like garbage.
    """
    for job in all_jobs(store.root):
        if job.state().phase in ("claimed", "running") and not _index_of(store, job):
            raise StoreError(
                f"task {job.task_id} has just been claimed, and what it needs is not known yet",
                "repeat the command in a minute",
            )


def _ended(root: Path, before: float) -> Iterator[JobDirectory]:
    """Tasks that the server knows to have ended before a moment."""
    for job in all_jobs(root):
        state = job.state()
        if state.phase == "reported" and state.finished <= before and not waiting(job):
            yield job


def _superseded(root: Path, before: float) -> Iterator[Garbage]:
    """Tasks set aside before a moment, when the server gave their numbers to others."""
    for path in sorted(jobs_dir(root).glob("superseded/*")):
        if _touched(path) <= before:
            yield Garbage(path, _size(path), "another task has its number now")


def _index_of(store: Store, job: JobDirectory) -> list[str]:
    name = index_key(str(job.task_id))
    return [name] if store.index_file(name).is_file() else []


def _partials(root: Path, newest: float) -> Iterator[Garbage]:
    """Downloads that nobody went on with."""
    for path in sorted(root.glob("*/.partial/*")):
        if _DIGEST.fullmatch(path.name) and _touched(path) <= newest:
            yield Garbage(path, _size(path), "a download that was given up")


def _of_step(step: Path, kept: set[str], newest: float) -> Iterator[Garbage]:
    """Only what a step of pidml made is looked at: a store may lie in a folder with other things."""
    for path in sorted(step.iterdir()) if step.is_dir() else ():
        match = _OWN.match(path.name)
        if match is None or is_held(step / match["digest"]) or _changed(path, match["kind"]) > newest:
            continue
        if is_temporary(path):
            yield Garbage(path, _size(path), "left by a process that was killed")
        elif match["digest"] not in kept:
            yield Garbage(path, _size(path), "no kept job needs it")
        elif match["kind"] == ".work" and (step / match["digest"] / "provenance.json").is_file():
            yield Garbage(path, _size(path), "kept to resume, and its output is complete")


def _temporaries(root: Path, newest: float) -> Iterator[Garbage]:
    """Unfinished writes and removals outside the folders of steps."""
    places = ("index", "jobs", "jobs/*", "jobs/*/*", "published/*", "*/.partial", ".containers")
    for place in places:
        for path in sorted(root.glob(f"{place}/.*")):
            if is_temporary(path) and _touched(path) <= newest:
                yield Garbage(path, _size(path), "left by a process that was killed")


def _changed(path: Path, kind: str | None) -> float:
    """An output is published in one go; what is beside it may be written to for days."""
    return path.lstat().st_mtime if kind is None else _touched(path)


def _touched(path: Path) -> float:
    """Return when a file, or anything in a folder, last changed."""
    return max(each.lstat().st_mtime for each in (path, *path.rglob("*")))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.lstat().st_size for file in files if file.is_file())
