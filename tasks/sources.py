"""Which of a job's files a step is about: those that it trains on, or the experimental ones that it adapts to."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import luigi

from pidml.spec import JobSpec
from tasks.framework import JobTask, Step

#: Sections of the job that name files.
DATASET, ADAPTATION = "dataset", "adaptation"


class OfFiles(Step):
    """A step that obtains or prepares files, once for each section of the job that names some.

    For the files of ``adaptation`` it reads the job as if there were no others: its output is that of any job about
    these experimental files, and shared with it.
    """

    source = luigi.ChoiceParameter(
        default=DATASET,
        choices=[DATASET, ADAPTATION],
        description="which of the job's files: those of its dataset, or the experimental ones that it adapts to",
    )
    exclude_index = True

    def _repr_params(self, all_params: bool = False) -> dict[str, Any]:
        """Leave out that a step is about what every job has."""
        params = super()._repr_params(all_params)
        if self.source == DATASET:
            params.pop("source", None)
        return params

    @property
    def title(self) -> str:
        """Name of the step for people."""
        return super().title if self.source == DATASET else f"{super().title}:{self.source}"

    @cached_property
    def _spec_of_files(self) -> JobSpec:
        return self.whole_job.of_experimental_files() if self.source == ADAPTATION else self.whole_job

    @property
    def spec(self) -> JobSpec:
        """The specification, about the files in question alone."""
        return self._spec_of_files


def sources_of(task: JobTask) -> tuple[str, ...]:
    """Return the sections of the task's job whose files are used."""
    return (DATASET, ADAPTATION) if task.whole_job.adaptation.active else (DATASET,)
