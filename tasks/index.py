"""The store's index: which outputs belong to a job, for ``pidml ls``, ``pidml get`` and ``pidml gc``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidml.identity import digest

if TYPE_CHECKING:
    from tasks.framework import JobTask


def job_identity(task: JobTask) -> str:
    """Return a digest over everything that the job says."""
    return digest(task.spec.model_dump(mode="json"))


def is_indexed(task: JobTask) -> bool:
    """Tell whether the index has the job as it is now."""
    return task.store.indexed_identity(task.job_key) == job_identity(task)


def renew_index(task: JobTask) -> None:
    """Record the outputs of the task's job, unless they are recorded."""
    from tasks.steps import outputs_of

    if not is_indexed(task):
        task.store.write_index(task.job_key, job_identity(task), outputs_of(task))
