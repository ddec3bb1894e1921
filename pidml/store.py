"""Where outputs lie: ``<store>/<Task>/<digest>/``, a log beside each, and an index from jobs to digests."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pidml.atomic import explained, write_json
from pidml.errors import UnknownJob


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
        """Record which outputs belong to ``job``: step name → digests of its branches."""
        write_json(self.index_file(job), {"steps": list(steps), "digests": dict(steps)})

    def indexed(self, job: str) -> dict[str, list[str]] | None:
        """Return the index of ``job`` in the order of its steps; None if there is none."""
        try:
            content = json.loads(self.index_file(job).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return {step: content["digests"][step] for step in content["steps"]}

    def read_index(self, job: str) -> dict[str, list[str]]:
        """Return the index of ``job``: step name → digests of its branches.

        Raises:
            UnknownJob: no job of that name ran in this store.
        """
        index = self.indexed(index_key(job))
        if index is None:
            known = ", ".join(self.jobs()) or "none yet"
            raise UnknownJob(f"no job {job!r} has run in {self.root}", f"jobs here: {known}")
        return index

    def jobs(self) -> list[str]:
        """Return the names of the jobs that ran in this store."""
        return sorted(path.stem for path in (self.root / "index").glob("*.json"))


def index_key(job: str) -> str:
    """Return the name under which a job is indexed: a preset's name, a file's stem, or ``task-17``.

    >>> index_key("jobs/my job.yaml"), index_key("17")
    ('my_job', 'task-17')
    """
    stem = re.sub(r"\.(ya?ml|json)$", "", job).rsplit("/", 1)[-1]
    return f"task-{stem}" if stem.isdigit() else re.sub(r"[^\w.+-]", "_", stem)
