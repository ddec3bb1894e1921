"""The course of a workflow on a batch system: what law does, with what it gets wrong put right.

Faults of law 0.1.21 that are worked around here (those of single commands are in :mod:`tasks.remote_manager`):

- The state file is written in place and only every 50 submissions: a kill loses jobs, which are then submitted twice,
  or leaves half a file. → written atomically; every submission is in a journal; what is in neither is looked for.
- A job out of retries is submitted once more while others run (``submit`` gets all newly failed jobs). → filtered.
- Retries are counted per process, and failed jobs of an earlier run count as one. → counted in the state file; a new
  run starts anew with what failed.
- A job that failed after its outputs were there is repeated; outputs that a network file system shows late count as
  missing. → outputs decide, and may be late.
- The first failure ends the run although others go on; ``--tolerance`` has no effect without ``--acceptance``.
  → the run waits for all jobs, and tolerance means what it says.
"""

from __future__ import annotations

import fcntl
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from law.contrib.htcondor import HTCondorWorkflow
from law.contrib.htcondor.workflow import HTCondorWorkflowProxy
from law.contrib.slurm import SlurmWorkflow
from law.contrib.slurm.workflow import SlurmWorkflowProxy
from law.workflow.remote import JobData

from pidml import provenance
from pidml.atomic import explained, write_text
from pidml.batch.journal import Journal
from pidml.batch.status import Cause
from pidml.batch.summary import cause_in_log, code_in_log, summary_lines
from pidml.errors import TRANSIENT_CODES, BatchError, BatchUnavailable, PidmlError
from tasks.jobstate import note_failure, note_progress
from tasks.messages import shown_once
from tasks.remote_manager import HTCondorManager, SlurmManager, Watched
from tasks.remote_sharing import Sharing, wait_for_arrival

#: Times that a job may be lost by the batch system (evicted, preempted, node gone) before that counts as a failure.
LOST_LIMIT = 10
#: Rounds of polling for which the outputs of a job that ended well may be invisible.
LATE_LIMIT = 3
#: First pause between two queries, in min; doubles up to ``--poll-interval``.
FIRST_PAUSE = 2.0 / 60.0


class Notes(JobData):
    """law's record of jobs, and what was learnt from each job's failures."""

    attributes = {**JobData.attributes, "notes": {}}  # noqa: RUF012 - law's way

    def update(self, other: Mapping[str, Any]) -> None:
        """Take over what was saved: JSON has made texts of numbers."""
        other = dict(other)
        if "notes" in other:
            other["notes"] = {int(number): note for number, note in other["notes"].items()}
        super().update(other)


class SafeProxy(Sharing):
    """What both kinds of workflow have in common. Mixed in before law's class."""

    manager_class: type[Watched]
    job_data_cls = Notes
    #: law repeats a failed query once per job of the chunk
    show_errors = 1

    def create_job_manager(self, **kwargs: Any) -> Watched:
        """Return the manager, whose answers pass through :meth:`_look_at` before law sees them."""
        manager = self.manager_class(**kwargs)
        manager.watch = self._look_at
        return manager

    def threshold(self, n: int | None = None) -> float:
        """Return how many branches must be there: ``--acceptance``, or all but those that ``--tolerance`` allows."""
        total = len(self.task.branch_map) if n is None else n
        accepted = float(super().threshold(n))
        return min(accepted, total - self._tolerated(total))

    def _tolerated(self, total: int) -> int:
        tolerance = self.task.tolerance
        return int(tolerance * (1 if tolerance > 1 else total) + 1e-9)

    # Notes about jobs, for the job files.

    def note(self, job_num: int) -> dict[str, Any]:
        """Return what is known about a job from its failures: factors, how often it was lost, its history."""
        fresh = {"memory": 1.0, "time": 1.0, "lost": 0, "log_bytes": 0, "history": []}
        note: dict[str, Any] = self.job_data.notes.setdefault(job_num, fresh)
        return note

    def token(self, job_num: int) -> str:
        """Return the name of a job's present submission."""
        return str(self.job_data.jobs[job_num]["extra"]["token"])

    # Running.

    def _run_impl(self) -> Any:
        if self.task.is_controlling_remote_jobs():
            return super()._run_impl()
        if len(self._get_existing_branches(sync=True)) >= self.threshold():
            return None
        try:
            with self._alone():
                self._submit_and_wait()
        except PidmlError as error:
            self._report(error)
            raise
        return None

    def _submit_and_wait(self) -> None:
        task = self.task
        note_progress(task.job_directory, task.title)
        self.job_manager.journal = Journal(task.work / "submitted.jsonl")
        self.site = task.check_request()
        task.prepare_submission()
        self._take_up()
        with self._alone_with_outputs():
            self._submit_and_poll()

    def _submit_and_poll(self) -> None:
        task = self.task
        task.poll_interval = min(self._longest_pause, FIRST_PAUSE)
        try:
            super()._run_impl()
        except PidmlError:
            raise
        except Exception as error:
            if not self._is_tolerated():
                raise self._explained(error) from error
            print("\n".join(self._lines()), flush=True)  # noqa: T201 - the summary is the output
        finally:
            task.poll_interval = self._longest_pause

    def slow_down(self) -> None:
        """Double the pause between two queries, up to what the user set."""
        self.task.poll_interval = min(2 * self.task.poll_interval, self._longest_pause)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One submitter per workflow: two would submit everything twice."""
        path = self.task.work / "submitter.lock"
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BatchUnavailable(
                    f"another process looks after the jobs of {self.task.title} ({path})",
                    "wait for it, or end it first",
                ) from error
            yield

    @property
    def _state_file(self) -> Path:
        return Path(self.get_cached_output()["jobs"].path)

    def dump_job_data(self) -> None:
        """Write the state atomically; then the journal has nothing to add."""
        self.job_data["dashboard_config"] = {}
        with self._dump_lock:
            write_text(self._state_file, json.dumps(self.job_data, indent=1) + "\n")

    def _take_up(self) -> None:
        """Sort out what an earlier submitter left: jobs that live stay, everything else is to be submitted."""
        if self.task.ignore_submission or not self._state_file.is_file():
            self._state_file.unlink(missing_ok=True)
            return
        data = self.job_data
        data.update(json.loads(self._state_file.read_text(encoding="utf-8")))
        numbers = self._numbers_of({job["extra"].get("token"): job for job in data.jobs.values()})
        existing = self._get_existing_branches()
        for job_num, job in list(data.jobs.items()):
            job["job_id"] = numbers.get(job["extra"].get("token"), job["job_id"])
            if all(branch in existing for branch in job["branches"]):
                continue
            alive = job["status"] in (None, self.job_manager.PENDING, self.job_manager.RUNNING)
            if alive and job["job_id"] not in (None, data.dummy_job_id):
                continue
            if job["status"] == self.job_manager.FAILED:
                data.attempts.pop(job_num, None)
                data.notes.pop(job_num, None)
            data.unsubmitted_jobs[job_num] = job["branches"]
            del data.jobs[job_num]
        self._job_retries.update(data.attempts)
        self.dump_job_data()

    def _numbers_of(self, jobs: Mapping[str | None, Mapping[str, Any]]) -> dict[str, Any]:
        """Return token → number of submissions whose number did not get into the state file."""
        known: dict[str, Any] = self.job_manager.journal.known()
        unknown = [
            token
            for token, job in jobs.items()
            if token and token not in known and job["job_id"] in (None, self.job_data.dummy_job_id)
            and job["status"] is None
        ]  # fmt: skip
        if unknown:
            wait_for_arrival(self._state_file.stat().st_mtime)
        for start in range(0, len(unknown), 100):
            known |= self.job_manager.system.find(unknown[start : start + 100])
        return known

    # Submitting.

    def submit(self, retry_jobs: Mapping[int, list[int]] | None = None) -> Any:
        """Submit; of the failed jobs only those that are to be tried again."""
        again = {
            number: branches
            for number, branches in (retry_jobs or {}).items()
            if self.job_data.jobs[number]["status"] == self.job_manager.RETRY
        }
        return super().submit(again)

    def _submit_batch(self, submit_jobs: Mapping[int, list[int]], **kwargs: Any) -> Any:
        """Give every submission a name of its own and write it down before anything is submitted."""
        task = self.task
        for job_num, branches in submit_jobs.items():
            name = f"pidml-{type(task).__name__}-{branches[0]}-{task.digest}-{uuid.uuid4().hex[:8]}"
            self.job_data.jobs[job_num]["extra"]["token"] = name
        self.dump_job_data()
        self._registry.write(self._in_queue())
        numbers, files = super()._submit_batch(submit_jobs, **kwargs)
        errors = {}
        for job_num, number in zip(submit_jobs, numbers, strict=True):
            if isinstance(number, Exception):
                errors[job_num] = number
                self.job_data.jobs[job_num]["job_id"] = self.job_data.dummy_job_id
                self.note(job_num)["history"].append({"cause": "", "reason": f"not submitted: {number}", "id": None})
        if len(errors) == len(submit_jobs):
            raise next(iter(errors.values()))
        return numbers, files

    def create_job_file(self, job_num: int, branches: list[int]) -> Any:
        """Write the job file."""
        made = super().create_job_file(job_num, branches)
        self.job_manager.tokens[str(made["job"])] = self.token(job_num)
        return made | {"log": str(self.task.job_log(branches))}

    def create_job_file_factory(self, **kwargs: Any) -> Any:
        """Job files lie beside the state: on the shared file system, and found again."""
        folder = self.task.work / "files"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return super().create_job_file_factory(dir=str(folder), mkdtemp=False, cleanup=False, **kwargs)

    # Looking at what the scheduler says.

    def _look_at(self, answers: dict[Any, Any]) -> None:
        """Change the scheduler's answers to what is to be believed, and draw conclusions from failures."""
        # never end while other jobs run: the decision is made at the end
        self.poll_data.n_failed_max = len(self.job_data)
        numbers = {job["job_id"]: job_num for job_num, job in self.job_data.jobs.items()}
        remove = []
        for job_id, answer in answers.items():
            if isinstance(answer, Exception) or answer["status"] in (
                self.job_manager.PENDING,
                self.job_manager.RUNNING,
            ):
                continue
            job_num = numbers[job_id]
            if self._made(job_num):
                answer |= {"status": self.job_manager.FINISHED, "code": 0, "error": None}
            elif answer["status"] == self.job_manager.FINISHED:
                self._late[job_num] += 1
                if self._late[job_num] <= LATE_LIMIT:
                    answer["status"] = self.job_manager.RUNNING
            else:
                self._learn(job_num, answer)
            if answer["extra"]["remove"]:
                remove.append(job_id)
        if remove:
            self.job_manager.system.cancel(remove)

    def _made(self, job_num: int) -> bool:
        return all(self.task.as_branch(branch).complete() for branch in self.job_data.jobs[job_num]["branches"])

    def _learn(self, job_num: int, answer: dict[str, Any]) -> None:
        """Decide from the cause of a failure whether and how the job is tried again."""
        note, cause = self.note(job_num), answer["extra"]["cause"]
        log = Path(str(self.job_data.jobs[job_num]["extra"].get("log", "")))
        if cause == Cause.task and (said := cause_in_log(log, note["log_bytes"])):
            cause, answer["error"] = said, f"killed for its {said}"
        note["log_bytes"] = log.stat().st_size if log.is_file() else 0
        note["history"].append(
            {"cause": cause, "reason": answer["error"], "id": answer["job_id"], "when": provenance.now()}
        )
        if cause in (Cause.memory, Cause.time):
            bound = self.task.bound(cause)
            if bound and note[cause] >= bound:
                self._job_retries[job_num] = self.task.retries  # a further attempt would get no more
            note[cause] = min(2 * note[cause], bound) if bound else 2 * note[cause]
        elif cause == Cause.lost:
            note["lost"] += 1
            if note["lost"] <= LOST_LIMIT:
                self._job_retries[job_num] -= 1  # law adds one: it does not count
        elif cause in (Cause.cancelled, Cause.impossible):
            self._job_retries[job_num] = self.task.retries

    # The end.

    def _is_tolerated(self) -> bool:
        """Whether all jobs have ended and no more failed than ``--tolerance`` allows."""
        ends = (self.job_manager.FINISHED, self.job_manager.FAILED)
        ended = all(job["status"] in ends for job in self.job_data.jobs.values())
        return ended and 0 < len(self._failed_jobs()) <= self._tolerated(len(self.job_data))

    def _explained(self, error: Exception) -> BatchError:
        """Return what law raised (text alone) as an error that says what to do."""
        failed, total = len(self._failed_jobs()), len(self.job_data)
        if str(error) == "poll_fails exceeded":  # law's
            what = f"{self.task.title}: the scheduler did not answer {self.task.poll_fails} times in a row"
            return BatchUnavailable(what, "the jobs may go on; rerun to take them up again")
        if not failed:
            return BatchError(f"{self.task.title}: {error}", "rerun to take up the jobs again")
        return BatchError(f"{self.task.title}: {failed} of {total} jobs failed", "rerun to submit those once more")

    def _report(self, error: PidmlError) -> None:
        """Print the summary and leave the reason where the poller finds it."""
        lines = self._lines()
        print("\n".join([*lines, f"{self.task.title} failed: {error}"]), flush=True)  # noqa: T201
        failed = self._failed_jobs()
        log = Path(next(iter(failed.values()))["extra"].get("log", "")) if failed else None
        note_failure(self.task.job_directory, self.task.title, error, log, code=self._passing_code(failed))
        shown_once(error)

    def _passing_code(self, failed: Mapping[int, Mapping[str, Any]]) -> str:
        """Return the code of an error that may pass, if it is of that kind in every job that failed; otherwise ""."""
        if any(each["cause"] != Cause.task for number in failed for each in self.note(number)["history"][-1:]):
            return ""
        codes = [code_in_log(Path(job["extra"].get("log", ""))) for job in failed.values()]
        return codes[0] if codes and TRANSIENT_CODES.issuperset(codes) else ""

    def _failed_jobs(self) -> dict[int, dict[str, Any]]:
        return {number: job for number, job in self.job_data.jobs.items() if job["status"] == self.job_manager.FAILED}

    def _lines(self) -> list[str]:
        notes = {number: self.note(number) for number in self._failed_jobs()}
        return summary_lines(self.task.title, self._failed_jobs(), notes)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late: Counter[int] = Counter()
        self._longest_pause = float(self.task.poll_interval)


class SlurmProxy(SafeProxy, SlurmWorkflowProxy):
    """Slurm."""

    manager_class = SlurmManager


class HTCondorProxy(SafeProxy, HTCondorWorkflowProxy):
    """HTCondor."""

    manager_class = HTCondorManager


class Slurm(SlurmWorkflow):
    """law's workflow on Slurm with the proxy of this module."""

    exclude_index = True
    workflow_proxy_cls = SlurmProxy


class HTCondor(HTCondorWorkflow):
    """law's workflow on HTCondor with the proxy of this module."""

    exclude_index = True
    workflow_proxy_cls = HTCondorProxy
