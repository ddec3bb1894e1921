"""Job managers for law that know their scheduler better than law's own.

Every fault of law 0.1.21 that has to do with submitting and querying is worked around here:

- ``squeue`` and ``sacct`` output is parsed by blanks, so that "CANCELLED by 0" is not understood; suspended and
  preempted jobs count as failed; a site without accounting makes every query fail. HTCondor jobs that transfer output
  or are suspended count as failed, and jobs ended by a signal as finished. → :mod:`pidml.batch` asks and understands.
- A job that the scheduler does not list for a moment (accounting lags behind) counts as failed. → minutes.
- A submission whose answer was lost is submitted again. → it is looked for by its token until the scheduler can say.
- Submission gives up after 9 s. → minutes, unless the scheduler says that the request can never be granted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from law.contrib.htcondor import HTCondorJobManager
from law.contrib.slurm import SlurmJobManager
from law.util import iter_chunks

from pidml.batch import htcondor, slurm
from pidml.batch.journal import Journal
from pidml.batch.leftover import IN_FLIGHT
from pidml.batch.status import VANISHED, Cause, JobStatus, State
from pidml.errors import BatchError, BatchUnavailable, PidmlError

#: How often, at least, a job must be missing from the scheduler's answers before it counts as lost.
MISSING_LIMIT = 3
#: How long a scheduler that does not take jobs is tried, in s.
PATIENCE = 300.0
_LONGEST_PAUSE = 20.0
_STAND_IN = "none:"

_UNLISTED = JobStatus(State.running, reason="not listed by the scheduler at the moment", listed=False)
_UNCERTAIN = JobStatus(State.pending, reason="it is not known yet whether the scheduler took it", listed=False)


class Refused(BatchError):
    """The scheduler will never take this submission."""


class Unsure(BatchUnavailable):
    """Nobody knows whether the scheduler took this submission: it did not answer, nor did it say later."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.when = time.monotonic()


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
        #: How long a job may be missing from the scheduler's answers before it counts as lost, in s.
        self.missing_seconds = 180.0
        #: Job → how often it was missing, and since when.
        self._missing: dict[Any, tuple[int, float]] = {}
        #: What stands for the number of a submission that failed → its token and why.
        self._without_number: dict[str, tuple[str, Exception]] = {}
        #: The same → the number, where the submission turned out to have succeeded.
        self._found: dict[str, Any] = {}
        #: Since when submissions fail; of all threads, so that thousands of jobs do not wait one after the other.
        self._down_since = math.inf

    def submit(self, job_file: Any, **kwargs: Any) -> Any:
        """Submit one job file, or several at once; return the number of each job, or the error in its place."""
        several = isinstance(job_file, (list, tuple))
        files = [str(path) for path in (job_file if several else [job_file])]
        numbers: dict[str, Any] = {}
        pause = IN_FLIGHT
        while rest := [path for path in files if path not in numbers]:
            try:
                given = super().submit(rest if several else rest[0], **kwargs | {"retries": 0})  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - law raises nothing else
                numbers |= self._after_failure(rest, str(error).strip(), pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._down_since = math.inf
                numbers |= dict(zip(rest, given if several else [given], strict=True))
        if self.journal is not None:
            for path in files:
                if not isinstance(numbers[path], Exception):
                    self.journal.submitted(self.tokens[path], numbers[path])
        return [numbers[path] for path in files] if several else numbers[files[0]]

    def _after_failure(self, files: list[str], text: str, pause: float) -> dict[str, Any]:
        """Return file → number, or why there is none; files that are left out were not taken, which is certain."""
        refused = any(mark in text.lower() for mark in self.system.PERMANENT)
        refusal = Refused(text, "correct the profile, or `resources` in the job")
        if refused and len(files) == 1:
            return {files[0]: refusal}
        # of several files in one call, those before the refused one have been taken
        now = time.monotonic()
        if not refused:
            self._down_since = min(self._down_since, now)
        found = self._look_for(files, 0.0 if refused else pause, PATIENCE + (now if refused else self._down_since))
        if found is None:
            unsure = Unsure(f"no job was taken for {PATIENCE:g} s: {text}", "rerun when it answers")
            return dict.fromkeys(files, unsure)
        return (dict.fromkeys(files, refusal) if refused else {}) | found

    def _look_for(self, files: list[str], pause: float, end: float) -> dict[str, Any] | None:
        """Return file → number of those files whose submission succeeded although it seemed not to.

        Waits for submissions that are on their way, and for a scheduler that does not answer; None if it has not done
        so by ``end``.
        """
        while time.monotonic() + pause <= end:
            time.sleep(pause)
            try:
                found = self.system.find([self.tokens[path] for path in files])
            except PidmlError:
                pause = min(max(1.0, 2 * pause), _LONGEST_PAUSE)
            else:
                return {path: found[self.tokens[path]] for path in files if self.tokens[path] in found}
        return None

    def stand_in(self, token: str, error: Exception) -> str:
        """Return what stands for the number of a submission that failed; :meth:`query` knows what became of it."""
        name = f"{_STAND_IN}{token}"
        self._without_number[name] = (token, error)
        return name

    @staticmethod
    def is_stand_in(job_id: Any) -> bool:
        """Tell whether this is no number but stands for one."""
        return str(job_id).startswith(_STAND_IN)

    def query(self, job_id: Any, **_: Any) -> Any:
        """Return what the scheduler says about one job or several, in law's terms."""
        several = isinstance(job_id, (list, tuple))
        jobs = list(job_id) if several else [job_id]
        told = self._without_numbers([job for job in jobs if job in self._without_number and job not in self._found])
        numbers = {job: self._found.get(job, job) for job in jobs if job not in told}
        known = self.system.query(list(numbers.values())) if numbers else {}
        told |= {job: self._or_missing(job, known.get(number)) for job, number in numbers.items()}
        answers = {job: self._in_law(job, told[job]) for job in jobs}
        return answers if several else answers[job_id]

    def _without_numbers(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Return what became of submissions that failed, as far as they do not turn out to have succeeded."""
        told: dict[str, JobStatus] = {}
        for chunk in iter_chunks([job for job in jobs if self._is_unsure(job)], 100):
            found = self.system.find([self._without_number[job][0] for job in chunk])
            for job in chunk:
                token, error = self._without_number[job]
                if token in found:
                    self._found[job] = found[token]
                    if self.journal is not None:
                        self.journal.submitted(token, found[token])
                elif isinstance(error, Unsure) and time.monotonic() < error.when + IN_FLIGHT:
                    told[job] = _UNCERTAIN
                else:
                    told[job] = JobStatus(State.failed, Cause.lost, _said(error))
        for job in jobs:
            if not self._is_unsure(job):
                told[job] = JobStatus(State.failed, Cause.impossible, _said(self._without_number[job][1]))
        return told

    def _is_unsure(self, job: str) -> bool:
        return not isinstance(self._without_number[job][1], Refused)

    def _or_missing(self, job: Any, status: JobStatus | None) -> JobStatus:
        """Return what is known of a job that the scheduler may not list."""
        if status is not None:
            self._missing.pop(job, None)
            return status
        now = time.monotonic()
        times, since = self._missing.get(job, (0, now))
        self._missing[job] = (times + 1, since)
        lost = times + 1 >= MISSING_LIMIT and now >= since + self.missing_seconds
        return VANISHED if lost else _UNLISTED

    def _in_law(self, job: Any, status: JobStatus) -> dict[str, Any]:
        extra = {"cause": str(status.cause), "remove": status.remove, "listed": status.listed}
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
        for chunk in iter_chunks([self._found.get(job, job) for job in jobs], self.chunk_size_cancel):
            self.system.cancel(chunk)
        return dict.fromkeys(jobs) if several else None


class SlurmManager(Watched, SlurmJobManager):
    """Slurm."""

    system = slurm


class HTCondorManager(Watched, HTCondorJobManager):
    """HTCondor. Jobs are submitted 25 at a time, as separate clusters in one call."""

    system = htcondor
    merge_job_files = True
    chunk_size_submit = 25


def _said(error: Exception) -> str:
    return f"not submitted: {error.what if isinstance(error, PidmlError) else error}"
