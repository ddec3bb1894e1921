"""What is made of a scheduler's answers: which to believe, and what a failure says about the next attempt.

Faults of law 0.1.21 that are worked around here:

- A job that failed after its outputs were there is repeated; outputs that a network file system shows late count as
  missing. → outputs decide, and may be late.
- The first failure ends the run although others go on; ``--tolerance`` has no effect without ``--acceptance``, and
  ``--acceptance 10`` counts jobs here and branches there. → the run waits for all jobs; branches count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from law.workflow.remote import JobData

from pidml import provenance
from pidml.batch.status import Cause
from pidml.batch.summary import cause_in_log
from pidml.errors import PidmlError
from tasks.remote_sharing import Sharing

#: Times that a job may be lost by the batch system (evicted, preempted, node gone) before that counts as a failure.
LOST_LIMIT = 10
#: Rounds of polling for which the outputs of a job that ended well may be invisible.
LATE_LIMIT = 3


class Notes(JobData):
    """law's record of jobs, and what was learnt from each job's failures."""

    attributes = {**JobData.attributes, "notes": {}}  # noqa: RUF012 - law's way

    def update(self, other: Mapping[str, Any]) -> None:
        """Take over what was saved: JSON has made texts of numbers."""
        other = dict(other)
        if "notes" in other:
            other["notes"] = {int(number): note for number, note in other["notes"].items()}
        super().update(other)


class Outcomes(Sharing):
    """What a workflow concludes from what the scheduler says. Mixed in before law's class."""

    job_data_cls = Notes

    def note(self, job_num: int) -> dict[str, Any]:
        """Return what is known about a job from its failures: factors, how often it was lost, its history."""
        fresh = {"memory": 1.0, "time": 1.0, "disk": 1.0, "lost": 0, "log_bytes": 0, "history": []}
        note: dict[str, Any] = self.job_data.notes.setdefault(job_num, fresh)
        return note

    def _look_at(self, answers: dict[Any, Any]) -> None:
        """Change the scheduler's answers to what is to be believed, and draw conclusions from failures."""
        if any(isinstance(answer, Exception) for answer in answers.values()):
            return  # law throws away all answers of this round: a failure would be learnt from again in the next one
        numbers = {job["job_id"]: job_num for job_num, job in self.job_data.jobs.items()}
        waits = (self.job_manager.PENDING, self.job_manager.RUNNING)
        made = set()
        self._take_out({job_id: answer for job_id, answer in answers.items() if answer["extra"]["remove"]})
        for job_id, answer in answers.items():
            job_num, waiting = numbers[job_id], answer["status"] in waits
            if waiting and answer["extra"]["listed"]:
                continue
            if self._made(job_num):
                answer |= {"status": self.job_manager.FINISHED, "code": 0, "error": None}
                made.add(job_num)
            elif answer["status"] == self.job_manager.FINISHED:
                self._late[job_num] += 1
                if self._late[job_num] <= LATE_LIMIT:
                    answer["status"] = self.job_manager.RUNNING
            elif not waiting:
                self._learn(job_num, answer)
        self._set_ends(made)

    def _take_out(self, answers: Mapping[Any, dict[str, Any]]) -> None:
        """Take jobs out of the queue that must not run beside their successors; they count as waiting until then."""
        if not answers:
            return
        try:
            self.job_manager.cancel(list(answers))
        except PidmlError as error:
            self.task.publish_message(f"{len(answers)} jobs cannot be taken out of the queue yet: {error.what}")
            for answer in answers.values():
                answer["status"] = self.job_manager.PENDING
                answer["extra"] |= {"listed": True}

    def _set_ends(self, made: set[int]) -> None:
        """Tell law when to end: not before all jobs have, unless ``--acceptance`` asks for fewer branches."""
        jobs, total = self.job_data.jobs, len(self.task.branch_map)
        done = [job for job_num, job in jobs.items() if job_num in made or job["status"] == self.job_manager.FINISHED]
        enough = sum(len(job["branches"]) for job in done) >= self.accepted(total) - 1e-9
        self.poll_data.n_failed_max = len(self.job_data)
        self.poll_data.n_finished_min = 0 if enough else len(self.job_data)

    def accepted(self, total: int) -> float:
        """Return how many of so many branches are enough, as ``--acceptance`` says."""
        return float(super().threshold(total))

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
        if cause in (Cause.memory, Cause.time, Cause.disk):
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late: Counter[int] = Counter()
