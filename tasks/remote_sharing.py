"""Overlapping runs: two that name some of the same branches, or two jobs that share inputs, submit nothing twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

from law.util import iter_chunks
from law.workflow.remote import BaseRemoteWorkflowProxy

from pidml.batch import htcondor, slurm
from pidml.batch.journal import Journal
from pidml.batch.registry import Entry, Jobs, Registry
from pidml.batch.status import JobStatus, State
from pidml.errors import BatchUnavailable

#: Longest time, in s, that a submission takes to arrive after the submitter was killed.
IN_FLIGHT = 5.0


def wait_for_arrival(written: float) -> None:
    """Wait until a submission that was on its way when its submitter died has arrived.

    Args:
        written: when it was written down, in s since the epoch.
    """
    time.sleep(max(0.0, min(IN_FLIGHT, written + IN_FLIGHT - time.time())))


class Sharing(BaseRemoteWorkflowProxy):
    """What a workflow does so that no other one makes its branches. Mixed in before law's class."""

    _systems: ClassVar[dict[str, ModuleType]] = {"slurm": slurm, "htcondor": htcondor}
    _registry: Registry

    @contextmanager
    def _alone_with_outputs(self) -> Iterator[None]:
        """Hold the branches that are to be made; wait for other runs, take over what killed ones left in the queue."""
        task, existing = self.task, self._get_existing_branches()
        self._addresses = {branch: task.as_branch(branch).digest for branch in task.branch_map}
        wanted = [address for branch, address in self._addresses.items() if branch not in existing]
        folder = task.store.root / ".batch" / type(task).__name__
        journal = task.work / "submitted.jsonl"
        self._registry = Registry(folder, str(self._state_file), self.workflow_type, journal)
        # the state may have been removed, by hand for example, while what it knew of waits in the queue
        forgetful = not (self._state_file.is_file() or task.ignore_submission)
        with self._registry.held(wanted, self._take_over, task.publish_message, forgetful):
            self._get_existing_branches(sync=True)
            self._skip_jobs.clear()  # law looked when the task was scheduled
            try:
                yield
            finally:
                if not self._in_queue():
                    self._registry.forget()

    def _in_queue(self) -> Jobs:
        """Return the submissions that may be in the queue."""
        ended = (self.job_manager.FINISHED, self.job_manager.FAILED)
        return {
            job["extra"]["token"]: [self._addresses[branch] for branch in job["branches"]]
            for job in self.job_data.jobs.values()
            if job["status"] not in ended and "token" in job["extra"]
        }

    def _take_over(self, entries: list[Entry]) -> Jobs:
        """Take over jobs of runs that are no more; return all submissions that are known now."""
        for entry in entries:
            for token, number in self._living(entry).items():
                if entry.system != self.workflow_type:
                    raise BatchUnavailable(
                        f"{self.task.title}: job {number} on {entry.system} makes one of the branches",
                        f"wait for it, cancel it, or go on with --workflow {entry.system}",
                    )
                branches = [branch for branch, made in self._addresses.items() if made in entry.jobs[token]]
                self._adopt(branches, token, number)
        return self._in_queue()

    def _living(self, entry: Entry) -> dict[str, Any]:
        """Return token → number of those submissions that make one of the branches and are still in the queue."""
        mine = set(self._addresses.values())
        tokens = [token for token, made in entry.jobs.items() if mine & set(made)]
        numbers = {token: number for token, number in Journal(entry.journal).known().items() if token in tokens}
        system = self._systems[entry.system]
        if unknown := [token for token in tokens if token not in numbers]:
            wait_for_arrival(entry.path.stat().st_mtime)
            for chunk in iter_chunks(unknown, 100):
                numbers |= system.find(chunk)
        status: dict[Any, JobStatus] = {}
        for chunk in iter_chunks(list(numbers.values()), 500):
            status |= system.query(chunk)
        waits = (State.pending, State.running)
        return {
            token: number for token, number in numbers.items() if number in status and status[number].state in waits
        }

    def _adopt(self, branches: list[int], token: str, number: Any) -> None:
        """Treat another run's job as one of this workflow's."""
        data = self.job_data
        if not len(data):
            chunks = iter_chunks(sorted(self.task.branch_map), self.task.tasks_per_job)
            data.unsubmitted_jobs.update(enumerate(map(list, chunks), 1))
        for job_num, job in list(data.jobs.items()):
            if set(branches) & set(job["branches"]):
                data.unsubmitted_jobs[job_num] = job["branches"]
                del data.jobs[job_num]
        for job_num, waiting in list(data.unsubmitted_jobs.items()):
            data.unsubmitted_jobs[job_num] = [branch for branch in waiting if branch not in branches]
            if not data.unsubmitted_jobs[job_num]:
                del data.unsubmitted_jobs[job_num]
        job_num = 1 + max([0, *data.jobs, *data.unsubmitted_jobs])
        extra = {"token": token, "log": str(self.task.job_log(branches))}
        data.jobs[job_num] = data.job_data(number, branches, self.job_manager.PENDING, extra=extra)
        self.dump_job_data()
