"""What in a store no kept job needs, and its removal."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pidml.atomic import is_held, is_temporary
from pidml.errors import UnknownJob
from pidml.identity import DIGEST_LENGTH
from pidml.store import Store, index_key

#: An output, its log, its work folder, or a temporary sibling of one.
_OWN = re.compile(rf"\.?(?P<digest>[0-9a-f]{{{DIGEST_LENGTH}}})(\.log|\.work|\.tmp-\w+(\.\w+)?)?$")
#: What was touched more recently than this may be in the making.
MIN_AGE_SECONDS = 24 * 3600.0


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
        """Remove it. An output goes by renaming first, so that it never exists incomplete."""
        if self.path.is_dir():
            hidden = self.path.with_name(f".{self.path.name}.tmp-removed")
            self.path.rename(hidden)
            shutil.rmtree(hidden)
        else:
            self.path.unlink(missing_ok=True)


def find_garbage(store: Store, drop: Collection[str] = (), min_age: float = MIN_AGE_SECONDS) -> list[Garbage]:
    """Return what no kept job needs: outputs of earlier settings and of dropped jobs, and leftovers of kills.

    Args:
        store: the store.
        drop: jobs that are not kept, as :meth:`pidml.store.Store.jobs` names them or as they were given to a run.
        min_age: what changed less than this many seconds ago is left alone: it may be in the making.

    Raises:
        UnknownJob: a job to drop has not run in this store.
    """
    dropped = {_known(store, job) for job in drop}
    kept = {
        (step, digest)
        for job in store.jobs()
        if job not in dropped
        for step, digests in store.read_index(job).items()
        for digest in digests
    }
    found = [Garbage(store.index_file(job), 0, "dropped job") for job in sorted(dropped)]
    newest = time.time() - min_age
    found += _partials(store.root, newest)
    for step in sorted({step for job in store.jobs() for step in store.read_index(job)}):
        found += _of_step(store.root / step, {digest for name, digest in kept if name == step}, newest)
    return found


def _partials(root: Path, newest: float) -> Iterator[Garbage]:
    """Downloads that nobody went on with."""
    for path in sorted(root.glob("*/.partial/*")):
        touched = max((file.lstat().st_mtime for file in (path, *path.rglob("*"))), default=0.0)
        if re.fullmatch(rf"[0-9a-f]{{{DIGEST_LENGTH}}}", path.name) and touched <= newest:
            yield Garbage(path, _size(path), "a download that was given up")


def _of_step(step: Path, kept: set[str], newest: float) -> Iterator[Garbage]:
    """Only what a step of pidml made is looked at: a store may lie in a folder with other things."""
    for path in sorted(step.iterdir()) if step.is_dir() else ():
        match = _OWN.match(path.name)
        if match is None or path.lstat().st_mtime > newest or is_held(step / match["digest"]):
            continue
        if is_temporary(path):
            yield Garbage(path, _size(path), "left by a process that was killed")
        elif match["digest"] not in kept:
            yield Garbage(path, _size(path), "no kept job needs it")


def _known(store: Store, job: str) -> str:
    for name in (index_key(job), job):
        if name in store.jobs():
            return name
    raise UnknownJob(f"no job {job!r} has run in {store.root}", f"jobs here: {', '.join(store.jobs()) or 'none'}")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.lstat().st_size for file in files if file.is_file())
