"""Job managers for law that know their scheduler better than law's own.

Every fault of law 0.1.21 that has to do with submitting and querying is worked around here:

- ``squeue`` and ``sacct`` output is parsed by blanks, so that "CANCELLED by 0" is not understood; suspended and
  preempted jobs count as failed; a site without accounting makes every query fail. HTCondor jobs that transfer output
  or are suspended count as failed, and jobs ended by a signal as finished. → :mod:`pidml.batch` asks and understands.
- A job that the scheduler does not list for a moment (accounting lags behind) counts as failed. → three times in a row.
- A submission whose answer was lost is submitted again. → it is looked for by its token first.
- Submission gives up after 9 s. → minutes, unless the scheduler says that the request can never be granted.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

from law.contrib.htcondor import HTCondorJobManager
from law.contrib.slurm import SlurmJobManager

from pidml.batch import htcondor, slurm
from pidml.batch.journal import Journal
from pidml.batch.status import VANISHED, JobStatus, State
from pidml.errors import BatchError, BatchUnavailable, PidmlError

#: How often in a row a job may be missing from the scheduler's answers before it counts as lost.
MISSING_LIMIT = 3
#: How long a scheduler that does not take jobs is tried, in s.
PATIENCE = 300.0
_LONGEST_PAUSE = 20.0

_UNKNOWN = JobStatus(State.running, reason="not listed by the scheduler at the moment")


class Watched:
    """What both managers have in common. Mixed in before law's class."""

    system: ModuleType
    job_grouping_submit = False
    job_grouping_query = False
    job_grouping_cancel = False
    chunk_size_query = 500
    chunk_size_cancel = 100

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Job file → token of the submission.
        self.tokens: dict[str, str] = {}
        self.journal: Journal | None = None
        #: Called with the answers to each round of queries; may change them.
        self.watch: Callable[[dict[Any, Any]], None] = lambda _answers: None
        self._missing: Counter[Any] = Counter()
        #: Since when submissions fail; of all threads, so that thousands of jobs do not wait one after the other.
        self._down_since = math.inf

    def submit(self, job_file: Any, **kwargs: Any) -> Any:
        """Submit one job file, or several at once; return the number of each job.

        Raises:
            BatchError: the scheduler will never take it.
            BatchUnavailable: it did not take it for :data:`PATIENCE`.
        """
        several = isinstance(job_file, (list, tuple))
        files = [str(path) for path in (job_file if several else [job_file])]
        numbers: dict[str, Any] = {}
        pause = 1.0
        while rest := [path for path in files if path not in numbers]:
            try:
                given = super().submit(rest if several else rest[0], **kwargs | {"retries": 0})  # type: ignore[misc]
            except Exception as error:
                text = str(error).strip()
                if any(mark in text.lower() for mark in self.system.PERMANENT):
                    raise BatchError(text, "correct the profile, or `resources` in the job") from error
                numbers |= self._look_for(rest)
                now = time.monotonic()
                self._down_since = min(self._down_since, now)
                if now + pause > self._down_since + PATIENCE:
                    what = f"no job was taken for {PATIENCE:g} s: {text}"
                    raise BatchUnavailable(what, "rerun when it answers") from error
                time.sleep(0 if len(numbers) == len(files) else pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._down_since = math.inf
                numbers |= dict(zip(rest, given if several else [given], strict=True))
        if self.journal is not None:
            for path in files:
                self.journal.submitted(self.tokens[path], numbers[path])
        return [numbers[path] for path in files] if several else numbers[files[0]]

    def _look_for(self, files: list[str]) -> dict[str, Any]:
        """Return file → number of those files whose submission succeeded although it seemed not to."""
        try:
            found = self.system.find([self.tokens[path] for path in files])
        except PidmlError:
            return {}
        return {path: found[self.tokens[path]] for path in files if self.tokens[path] in found}

    def query(self, job_id: Any, **_: Any) -> Any:
        """Return what the scheduler says about one job or several, in law's terms."""
        several = isinstance(job_id, (list, tuple))
        jobs = list(job_id) if several else [job_id]
        known = self.system.query(jobs)
        answers = {}
        for job in jobs:
            status = known.get(job)
            self._missing[job] = 0 if status else self._missing[job] + 1
            if status is None:
                status = VANISHED if self._missing[job] >= MISSING_LIMIT else _UNKNOWN
            answers[job] = self._in_law(job, status)
        return answers if several else answers[job_id]

    def _in_law(self, job: Any, status: JobStatus) -> dict[str, Any]:
        extra = {"cause": str(status.cause), "remove": status.remove}
        if status.node:
            extra["remote_host"] = status.node
        return {
            "job_id": job,
            "status": str(status.state),
            "code": status.code,
            "error": status.reason or None,
            "extra": extra,
        }

    def query_batch(self, job_ids: list[Any], **kwargs: Any) -> dict[Any, Any]:
        """Query all jobs and let the workflow look at the answers before law does."""
        answers: dict[Any, Any] = super().query_batch(job_ids, **kwargs) if job_ids else {}  # type: ignore[misc]
        self.watch(answers)
        return answers

    def cancel(self, job_id: Any, **_: Any) -> Any:
        """Take jobs out of the queue."""
        several = isinstance(job_id, (list, tuple))
        jobs = list(job_id) if several else [job_id]
        self.system.cancel(jobs)
        return dict.fromkeys(jobs) if several else None


class SlurmManager(Watched, SlurmJobManager):
    """Slurm."""

    system = slurm


class HTCondorManager(Watched, HTCondorJobManager):
    """HTCondor. Jobs are submitted 25 at a time, as separate clusters in one call."""

    system = htcondor
    merge_job_files = True
    chunk_size_submit = 25
