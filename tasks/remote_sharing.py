"""Overlapping runs: two that name some of the same branches, or two jobs that share inputs, submit nothing twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from law.util import iter_chunks
from law.workflow.remote import BaseRemoteWorkflowProxy

from pidml.batch.leftover import living, wait_for_arrival
from pidml.batch.registry import Entry, Jobs, Registry
from pidml.errors import BatchUnavailable


class Sharing(BaseRemoteWorkflowProxy):
    """What a workflow does so that no other one makes its branches. Mixed in before law's class."""

    _registry: Registry

    @contextmanager
    def _alone_with_outputs(self) -> Iterator[None]:
        """Hold the branches that are to be made; wait for other runs, take over what killed ones left in the queue."""
        task, existing = self.task, self._get_existing_branches()
        self._addresses = {branch: task.as_branch(branch).digest for branch in task.branch_map}
        wanted = [address for branch, address in self._addresses.items() if branch not in existing]
        self._registry = self._own_registry()
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

    def _own_registry(self) -> Registry:
        task = self.task
        folder = task.store.root / ".batch" / type(task).__name__
        return Registry(folder, task.job_key, self._state_file, self.workflow_type, task.work / "submitted.jsonl")

    @property
    def _state_file(self) -> Path:
        return Path(self.get_cached_output()["jobs"].path)

    def _read_state(self) -> None:
        """Read the state, with the numbers of submissions that did not get into it."""
        data = self.job_data
        data.update(json.loads(self._state_file.read_text(encoding="utf-8")))
        for job in data.jobs.values():
            if self.job_manager.is_stand_in(job["job_id"]) and job["status"] != self.job_manager.FAILED:
                job |= {"job_id": data.dummy_job_id, "status": None}
        numbers = self._numbers_of_submissions()
        for job in data.jobs.values():
            job["job_id"] = numbers.get(job["extra"].get("token"), job["job_id"])

    def _numbers_of_submissions(self) -> dict[str, Any]:
        """Return token → number of the submissions in the journal, and of those that were never answered."""
        known: dict[str, Any] = self.job_manager.journal.known()
        unknown = [
            token
            for job in self.job_data.jobs.values()
            if (token := job["extra"].get("token")) and token not in known and job["status"] is None
            and job["job_id"] in (None, self.job_data.dummy_job_id)
        ]  # fmt: skip
        if unknown:
            wait_for_arrival(self._state_file.stat().st_mtime)
        for chunk in iter_chunks(unknown, 100):
            known |= self.job_manager.system.find(chunk)
        return known

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
        mine = set(self._addresses.values())
        for entry in entries:
            tokens = [token for token, made in entry.jobs.items() if mine & set(made)]
            for token, number in living(entry, tokens).items():
                if entry.system != self.workflow_type:
                    raise BatchUnavailable(
                        f"{self.task.title}: job {number} on {entry.system} makes one of the branches",
                        f"wait for it, cancel it, or go on with --workflow {entry.system}",
                    )
                branches = [branch for branch, made in self._addresses.items() if made in entry.jobs[token]]
                self._adopt(branches, token, number)
        return self._in_queue()

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
