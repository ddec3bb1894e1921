"""The course of a workflow on a batch system: what law does, with what it gets wrong put right.

Faults of law 0.1.21 that are worked around here (those of single commands are in :mod:`tasks.remote_manager`, those of
what is made of answers, ``--tolerance`` among them, in :mod:`tasks.remote_outcomes`):

- The state file is written in place and only every 50 submissions: a kill loses jobs, which are then submitted twice,
  or leaves half a file. → written atomically; every submission is in a journal; what is in neither is looked for.
- A job out of retries is submitted once more while others run (``submit`` gets all newly failed jobs). → filtered.
- Retries are counted per process, and failed jobs of an earlier run count as one. → counted in the state file; a new
  run starts anew with what failed.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from law.contrib.htcondor import HTCondorWorkflow
from law.contrib.htcondor.workflow import HTCondorWorkflowProxy
from law.contrib.slurm import SlurmWorkflow
from law.contrib.slurm.workflow import SlurmWorkflowProxy

from pidml.atomic import explained, write_text
from pidml.batch.journal import Journal, new_token
from pidml.batch.status import Cause
from pidml.batch.summary import code_in_log, summary_lines
from pidml.errors import TRANSIENT_CODES, BatchError, BatchUnavailable, PidmlError
from tasks.jobstate import note_failure, note_progress
from tasks.messages import shown_once
from tasks.remote_cancel import Cancelling
from tasks.remote_manager import HTCondorManager, Refused, SlurmManager, Watched
from tasks.remote_outcomes import LOST_LIMIT, Outcomes

#: A job that the scheduler does not list counts as lost after so many of the longest pauses between two queries.
MISSING_PAUSES = 3
#: First pause between two queries, in min; doubles up to ``--poll-interval``.
FIRST_PAUSE = 2.0 / 60.0


class SafeProxy(Outcomes, Cancelling):
    """What both kinds of workflow have in common. Mixed in before law's class."""

    manager_class: type[Watched]
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

    def token(self, job_num: int) -> str:
        """Return the name of a job's present submission."""
        return str(self.job_data.jobs[job_num]["extra"]["token"])

    # Running.

    def complete(self) -> bool:
        """Whether there is nothing left to do; with ``--no-poll`` that is so once jobs are submitted."""
        return self._handed_over or bool(super().complete())

    def _run_impl(self) -> Any:
        if self.task.cleanup_jobs:
            return super()._run_impl()
        if not self.task.cancel_jobs and len(self._get_existing_branches(sync=True)) >= self.threshold():
            return None
        try:
            with self._alone():
                self.job_manager.journal = Journal(self.task.work / "submitted.jsonl")
                if self.task.cancel_jobs:
                    self.cancel()
                else:
                    self._submit_and_wait()
        except PidmlError as error:
            self._report(error)
            raise
        return None

    def _submit_and_wait(self) -> None:
        task = self.task
        note_progress(task.job_directory, task.title)
        self.job_manager.missing_seconds = MISSING_PAUSES * 60 * self._longest_pause
        self.site = task.check_request()
        task.prepare_submission()
        self._take_up()
        with self._alone_with_outputs():
            self._submit_and_poll()
        if task.no_poll:
            self._handed_over = True
            task.publish_message("the same command without --no-poll waits for the jobs")

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
        data, existing = self.job_data, self._get_existing_branches()
        self._read_state()
        for job_num, job in list(data.jobs.items()):
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
        for job_num, attempts in data.attempts.items():
            self._job_retries[job_num] = attempts - min(self.note(job_num)["lost"], LOST_LIMIT)
        self.dump_job_data()

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
        """Give every submission a name of its own and write it down before anything is submitted.

        Raises:
            BatchError: it is the first one, and no job was taken.
        """
        data, task = self.job_data, self.task
        for job_num, branches in submit_jobs.items():
            data.jobs[job_num]["extra"]["token"] = new_token(type(task).__name__, branches[0], task.digest)
        self.dump_job_data()
        self._registry.write(self._in_queue())
        numbers, files = super()._submit_batch(submit_jobs, **kwargs)
        errors = {
            num: number for num, number in zip(submit_jobs, numbers, strict=True) if isinstance(number, Exception)
        }
        if len(errors) == len(submit_jobs) and self._is_first(submit_jobs):
            for job_num, error in errors.items():
                data.jobs[job_num]["job_id"] = data.dummy_job_id
                if isinstance(error, Refused):
                    del data.jobs[job_num]["extra"]["token"]  # there is nothing to look for
            self.dump_job_data()
            raise next(iter(errors.values()))
        if errors:
            said = str(next(iter(errors.values()))).splitlines()[0]
            task.publish_message(f"{len(errors)} of {len(submit_jobs)} jobs were not taken: {said}")
        for job_num, error in errors.items():
            data.jobs[job_num]["job_id"] = self.job_manager.stand_in(self.token(job_num), error)
        return [data.jobs[job_num]["job_id"] for job_num in submit_jobs], files

    def _is_first(self, submit_jobs: Mapping[int, list[int]]) -> bool:
        """Whether nothing was ever submitted but these jobs, and they only once."""
        return set(self.job_data.jobs) == set(submit_jobs) and not any(
            self.note(job_num)["history"] for job_num in submit_jobs
        )

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

    # The end.

    def _is_tolerated(self) -> bool:
        """Whether all jobs have ended and no more branches are missing than ``--tolerance`` allows."""
        ends = (self.job_manager.FINISHED, self.job_manager.FAILED)
        ended = all(job["status"] in ends for job in self.job_data.jobs.values())
        if not ended or not self._failed_jobs():
            return False
        return len(self._get_existing_branches(sync=True)) >= self.threshold()

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
        self._longest_pause = float(self.task.poll_interval)
        self._handed_over = False


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
