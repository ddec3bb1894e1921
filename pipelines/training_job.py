"""TrainingJob: everything that a job owes."""

from __future__ import annotations

from typing import Any, ClassVar

import law
import luigi

from tasks.download import DownloadAOD
from tasks.fetch_job import FetchJob
from tasks.framework import NO_JOB, JobTask
from tasks.produce import ProduceTracks
from tasks.remote import RemoteWorkflow, choose_for_steps, chosen_workflow
from tasks.replicas import TrainReplicas
from tasks.report import Report
from tasks.train import Train
from tasks.upload import ReportStatus

#: Steps to which the options go.
_STEPS: tuple[type[RemoteWorkflow], ...] = (DownloadAOD, ProduceTracks, Train, TrainReplicas)


class TrainingJob(JobTask, law.WrapperTask):
    """A whole job. With ``--job`` every step up to the report; with ``--job-id`` uploads and statuses too.

    The options go to every step that is made of branches: DownloadAOD, ProduceTracks, Train and TrainReplicas. What is
    given to one of them alone, such as ``--Train-retries``, goes before.
    """

    workflow = luigi.Parameter(
        default="",
        significant=False,
        description="where branches are made: local, slurm or htcondor; default: what the profile says",
    )
    retries = luigi.IntParameter(
        default=law.NO_INT, significant=False, description="times that a failed job is tried again; default: 2"
    )
    tasks_per_job = luigi.IntParameter(
        default=law.NO_INT, significant=False, description="branches that a job makes one after the other; default: 1"
    )
    parallel_jobs = luigi.IntParameter(
        default=law.NO_INT, significant=False, description="jobs in the queue at a time; default: all"
    )
    poll_interval = law.DurationParameter(
        default=law.NO_FLOAT,
        unit="minutes",
        significant=False,
        description="longest time between two queries of the scheduler, in minutes or with a unit; default: 1",
    )
    poll_fails = luigi.IntParameter(
        default=law.NO_INT,
        significant=False,
        description="consecutive failed queries of the scheduler before giving up; default: 60",
    )
    gpus = luigi.Parameter(
        default="", significant=False, description="GPUs to choose from, such as 0,1; default: all that are free"
    )
    exclude_params_repr_empty: ClassVar[set[str]] = {"workflow", "gpus"}
    exclude_params_repr: ClassVar[set[str]] = {
        *JobTask.exclude_params_repr, "retries", "tasks_per_job", "parallel_jobs", "poll_interval", "poll_fails"
    }  # fmt: skip
    #: They go to steps in another way, see :func:`tasks.remote.choose_for_steps`.
    exclude_params_req_set: ClassVar[set[str]] = {*exclude_params_repr, "workflow", "gpus"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen_workflow(self.workflow)  # says what is wrong with the configuration before anything begins
        own = {name for name, _ in JobTask.get_params()}
        for name, parameter in self.get_params():
            if name not in own and (value := getattr(self, name)) not in ("", law.NO_INT, law.NO_FLOAT):
                choose_for_steps(_STEPS, name, parameter.serialize(value))

    def requires(self) -> Any:
        """The last status of a server's task stands for all of it; otherwise the report, which needs every step.

        Raises:
            NoLabels: nothing can be trained on the job's data, which is said before anything is downloaded.
        """
        self.spec.check_labels()
        if self.job_id != NO_JOB:
            return ReportStatus.req(self, status="completed")
        return [FetchJob.req(self), Report.req(self)]
