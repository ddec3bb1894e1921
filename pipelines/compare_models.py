"""CompareModels: several jobs' models on the same test tracks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from pidml import steplog
from pidml.errors import SpecError
from pidml.spec import JobSpec
from pidml.store import comparison_key, short_names
from tasks.export import ExportModel
from tasks.framework import NO_JOB, JobTask, Step
from tasks.prepare import PrepareDataset
from tasks.tpc_response import TrainTPCResponse
from tasks.train import Train

if TYPE_CHECKING:
    from pidml.comparison import Contestant

#: As many as plots have colours for.
MOST_JOBS = 8


class CompareModels(Step):
    """Judge the models of several jobs on the test tracks of the first: quality, significance of differences, cost."""

    jobs = luigi.Parameter(description="presets, job files or task numbers, separated by commas")
    job = ""
    job_id = NO_JOB

    version = 2
    reads = ("evaluation", "seed")

    @cached_property
    def compared(self) -> list[str]:
        """The jobs, in the order given."""
        given = [name.strip() for name in self.jobs.split(",") if name.strip()]
        if not 2 <= len(given) <= MOST_JOBS or len(set(given)) != len(given):
            raise SpecError(
                f"--jobs {self.jobs}: 2 to {MOST_JOBS} different jobs are compared at a time",
                "for example: --jobs masked-mlp,attention",
            )
        return given

    @cached_property
    def whole_job(self) -> JobSpec:
        """The first job's specification: its bins and seed count."""
        first: JobSpec = self._of_each(Train)[0].whole_job
        return first

    def settings(self) -> dict[str, Any]:
        """The first job's settings, and the names that the tables show."""
        return super().settings() | {"names": short_names(self.compared)}

    def _of_each(self, step: type[JobTask]) -> list[Any]:
        return [step(job_id=int(job)) if job.isdigit() else step(job=job) for job in self.compared]

    def upstream(self) -> list[Any]:
        """Data, networks and bundle of each job."""
        return [*self._of_each(PrepareDataset), *self._models()]

    def _models(self) -> list[Any]:
        return [task for step in (Train, ExportModel) for task in self._of_each(step)]

    def requires(self) -> Any:
        """Everything upstream must be complete in the end.

        Raises:
            NoLabels, UnfairComparison: the job files alone say that no comparison is possible. Samples that exist say
                more, and are looked at instead.
        """
        if not all(task.complete() for task in self._of_each(PrepareDataset)):
            from pidml.comparison import check_jobs

            jobs = (task.whole_job for task in self._of_each(PrepareDataset))
            check_jobs(dict(zip(short_names(self.compared), jobs, strict=True)))
        return super().requires()

    def deps(self) -> list[Any]:
        """Before this task runs, only the data must be there: :meth:`run` looks at them, then asks for the models."""
        super().deps()  # looks at all that would be submitted
        return self._of_each(PrepareDataset)

    def run(self) -> Iterator[list[Any]]:  # type: ignore[override]
        """Make sure that comparing is fair, have the models made that are missing, then compare.

        Raises:
            UnfairComparison, NoLabels, MissingColumn, NoTracks: see :func:`pidml.comparison.contestants.entrants`.
        """
        if missing := [task for task in self._models() if not task.complete()]:
            with steplog.captured(self.log_file):
                self._look_at_samples()
            yield missing
        super().run()

    def _look_at_samples(self) -> None:
        from pidml.comparison import entrants

        try:
            entrants(self._contestants())
        except BaseException as error:
            self._explain(error)
            raise

    def note_outputs(self) -> None:
        """Give the comparison a name of its own in the store's index."""
        self.store.write_index(comparison_key(self.compared), {type(self).__name__: [self.digest]})

    def make(self, out: Path) -> None:
        """Compare and report."""
        from pidml.comparison import compare_models

        compare_models(self._contestants(), out)

    def _contestants(self) -> list[Contestant]:
        """Return the jobs with their data, and where their models lie, or will."""
        from pidml.comparison import Contestant
        from pidml.data.prepared import PreparedDataset

        steps = (self._of_each(step) for step in (PrepareDataset, Train, ExportModel))
        return [
            Contestant(
                name,
                train.whole_job,
                PreparedDataset.open(prepared.directory),
                tuple(type(train).req(train, branch=branch).directory for branch in train.branch_map),
                exported.directory,
                TrainTPCResponse.req(train).directory if TrainTPCResponse.asked_for(train.whole_job) else None,
            )
            for name, prepared, train, exported in zip(short_names(self.compared), *steps, strict=True)
        ]
