"""The store's index: which outputs belong to a job, for ``pidml ls``, ``pidml get`` and ``pidml gc``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidml.store import index_entry

if TYPE_CHECKING:
    from tasks.framework import JobTask


def is_indexed(task: JobTask) -> bool:
    """Tell whether the index has the outputs of the task's job as they are addressed now."""
    from tasks.steps import outputs_of

    return task.store.index_content(task.job_key) == index_entry(outputs_of(task))


def renew_index(task: JobTask) -> None:
    """Record the outputs of the task's job, unless they are recorded."""
    from tasks.steps import outputs_of

    outputs = outputs_of(task)
    if task.store.index_content(task.job_key) != index_entry(outputs):
        task.store.write_index(task.job_key, outputs)
