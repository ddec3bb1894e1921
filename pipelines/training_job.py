"""TrainingJob: everything that a job owes."""

from __future__ import annotations

from typing import Any

import law

from tasks.fetch_job import FetchJob
from tasks.framework import NO_JOB, JobTask
from tasks.report import Report
from tasks.upload import ReportStatus


class TrainingJob(JobTask, law.WrapperTask):
    """A whole job. With ``--job`` every step up to the report; with ``--job-id`` uploads and statuses too."""

    def requires(self) -> Any:
        """The last status of a server's task stands for all of it; otherwise the report, which needs every step.

        Raises:
            NoLabels: nothing can be trained on the job's data, which is said before anything is downloaded.
        """
        self.spec.check_labels()
        if self.job_id != NO_JOB:
            return ReportStatus.req(self, status="completed")
        return [FetchJob.req(self), Report.req(self)]
