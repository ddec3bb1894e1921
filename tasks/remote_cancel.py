"""``--cancel-jobs``: all jobs of a workflow leave the queue, and the next run submits anew.

law 0.1.21 knows only the numbers in the state file, which lacks them if the submitter was killed while it submitted,
calls a failed cancellation a success, and leaves a state in which the next run takes the jobs for cancelled by hand.
"""

from __future__ import annotations

import time
from typing import Any

from law.util import iter_chunks

from pidml.batch.status import State
from pidml.errors import BatchError
from tasks.remote_sharing import Sharing

#: How long cancelled jobs may take to end, in s: schedulers give them time between their signals.
ENDING_SECONDS = 120.0


class Cancelling(Sharing):
    """How a workflow takes its jobs out of the queue. Mixed in before law's class."""

    def cancel(self) -> None:
        """Take all jobs out of the queue and forget them.

        Raises:
            BatchError: the scheduler does not answer, or jobs do not end; what is known about them is kept.
        """
        self._controlled_jobs = True
        if self._state_file.is_file():
            self._read_state()
            alive = (None, self.job_manager.PENDING, self.job_manager.RUNNING)
            known = [job["job_id"] for job in self.job_data.jobs.values() if job["status"] in alive]
            jobs = [number for number in known if number not in (None, self.job_data.dummy_job_id)]
            self.task.publish_message(f"takes {len(jobs)} jobs out of the queue")
            if jobs:
                self.job_manager.cancel(jobs)
                self._wait_for_the_end(jobs)
            self._state_file.unlink()
            self._own_registry().forget()
        self.job_manager.journal.clear()

    def _wait_for_the_end(self, jobs: list[Any]) -> None:
        """Wait until the jobs are over, so that none makes what the next run's jobs make."""
        waits = (State.pending, State.running)
        end = time.monotonic() + ENDING_SECONDS
        while True:
            left: list[Any] = []
            for chunk in iter_chunks(jobs, self.job_manager.chunk_size_query):
                answers = self.job_manager.system.query(chunk)
                left += [job for job, status in answers.items() if status.state in waits]
            if not left:
                return
            if time.monotonic() > end:
                what = f"{len(left)} jobs are still in the queue {ENDING_SECONDS:g} s after they were cancelled"
                raise BatchError(f"{self.task.title}: {what}", "give the same command again later")
            jobs = left
            time.sleep(1.0)
