"""Where outputs lie: ``<store>/<Task>/<digest>/``, a log beside each, and an index from jobs to digests."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidml.atomic import explained, is_temporary, write_json
from pidml.errors import UnknownJob
from pidml.identity import digest

_JOB_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Store:
    """The store below ``root``, a local (or mounted) folder."""

    root: Path

    @classmethod
    def from_environment(cls) -> Store:
        """Return the store named by ``PIDML_STORE``; ``store`` in the current folder if it is not set."""
        return cls(Path(os.environ.get("PIDML_STORE") or "store").expanduser().absolute())

    def output(self, task: str, digest: str) -> Path:
        """Return the directory that holds the output of ``task`` with ``digest``."""
        return self.root / task / digest

    def log(self, task: str, digest: str) -> Path:
        """Return the log of the step that makes :meth:`output`; it is there even if the step failed."""
        return self.root / task / f"{digest}.log"

    def work(self, task: str, digest: str) -> Path:
        """Return (and make) the folder in which a step keeps what it needs to resume after a kill."""
        path = self.root / task / f"{digest}.work"
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def job(self, job_id: int) -> Path:
        """Return the folder with the state of a job claimed from the server."""
        return self.root / "jobs" / str(job_id)

    def index_file(self, job: str) -> Path:
        """Return the index of a job: its steps, their digests and folders."""
        return self.root / "index" / f"{job}.json"

    def write_index(self, job: str, steps: Mapping[str, list[str]]) -> None:
        """Record which outputs belong to ``job`` (its key): step name → digests of its branches, in order."""
        write_json(self.index_file(job), index_entry(steps))

    def read_index(self, job: str) -> dict[str, list[str]]:
        """Return the outputs of ``job`` (given as for :meth:`name_of`): step → digests.

        Raises:
            UnknownJob: no job of that name ran in this store.
        """
        content = self.index_content(self.name_of(job)) or {"steps": []}
        return dict(content["steps"])

    def name_of(self, job: str) -> str:
        """Return the name under which a job is indexed.

        Args:
            job: that name, a job as given to a run, or a job file's name alone if only one of that name ran here.

        Raises:
            UnknownJob: no such job ran in this store, or several did.
        """
        known = self.jobs()
        for name in (index_key(job), job):
            if name in known:
                return name
        path = Path(job)
        stem = re.sub(r"[^\w.+-]", "_", path.stem if path.suffix in _JOB_SUFFIXES else path.name)
        alike = [name for name in known if re.fullmatch(rf"{re.escape(stem)}-[0-9a-f]{{6}}", name)]
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise UnknownJob(f"several jobs called {stem!r} have run in {self.root}", f"name one: {', '.join(alike)}")
        raise UnknownJob(f"no job {job!r} has run in {self.root}", f"jobs here: {', '.join(known) or 'none yet'}")

    def index_content(self, job: str) -> dict[str, Any] | None:
        """Return what the index says of ``job`` (its key), see :func:`index_entry`; None if it never ran here."""
        try:
            return dict(json.loads(self.index_file(job).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def jobs(self) -> list[str]:
        """Return the names of the jobs that ran in this store."""
        return sorted(path.stem for path in (self.root / "index").glob("*.json") if not is_temporary(path))


def index_entry(steps: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the content of an index file; a list of pairs, because the order of the steps counts."""
    return {"steps": [[name, list(digests)] for name, digests in steps.items()]}


def short_names(jobs: Sequence[str]) -> list[str]:
    """Return short names for several jobs, unlike each other.

    >>> short_names(["masked-mlp", "a/new.yaml", "17", "b/new.yaml"])
    ['masked-mlp', 'new', 'task-17', 'new-2']
    """
    names: list[str] = []
    for job in jobs:
        plain = index_key(job if job.isdigit() else Path(job).name.removesuffix(Path(job).suffix))
        candidates = (plain, *(f"{plain}-{number}" for number in range(2, len(jobs) + 1)))
        names.append(next(name for name in candidates if name not in names))
    return names


def comparison_key(jobs: Sequence[str]) -> str:
    """Return the name under which a comparison of jobs is indexed.

    >>> comparison_key(["masked-mlp", "new.yaml"]).startswith("compare-masked-mlp+new-")
    True
    """
    return f"compare-{'+'.join(short_names(jobs))[:100]}-{digest([index_key(job) for job in jobs], 6)}"


def index_key(job: str) -> str:
    """Return the name under which a job is indexed: a preset's name, ``task-17``, or a file's stem and place.

    >>> index_key("sandbox"), index_key("17"), index_key("/data/my job.yaml")
    ('sandbox', 'task-17', 'my_job-2fa7db')
    """
    if job.isdigit():
        return f"task-{job}"
    path = Path(job)
    if path.suffix not in _JOB_SUFFIXES:
        return re.sub(r"[^\w.+-]", "_", job)
    return re.sub(r"[^\w.+-]", "_", path.stem) + "-" + digest(str(path.absolute()), 6)
