"""Everything that a run would submit is looked at before any of it runs.

Otherwise a training that no partition grants would be noticed after the downloads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import luigi

from pidml.errors import PidmlError
from tasks.jobstate import note_failure

if TYPE_CHECKING:
    from tasks.framework import JobTask
    from tasks.remote import RemoteWorkflow

_seen: set[str] = set()


def check_plan(root: JobTask) -> None:
    """Check what the jobs of every step ask for that a task needs and that is not complete, and whether it has room.

    Args:
        root: the task; what was looked at once in this process is not looked at again.

    Raises:
        PidmlError: what is wrong, with the step in front; the poller finds the reason too.
    """
    for step in _to_be_submitted(root):
        try:
            step.check_request()
        except PidmlError as error:
            note_failure(step.job_directory, step.title, error)
            raise type(error)(f"{step.title}: {error.what}", error.hint) from error


def _to_be_submitted(root: JobTask) -> Iterator[RemoteWorkflow]:
    """Yield the incomplete steps that run on a batch system, those that come last first."""
    waiting: list[Any] = [root]
    while waiting:
        task = waiting.pop()
        if task.task_id in _seen:
            continue
        _seen.add(task.task_id)
        if task.complete():
            continue
        if not getattr(task, "is_workflow", lambda: False)():
            needed = task.requires()
        else:
            needed = task.workflow_requires()
            if task.effective_workflow != "local" and not task.is_controlling_remote_jobs():
                yield task
        waiting += luigi.task.flatten(needed)  # type: ignore[no-untyped-call]
