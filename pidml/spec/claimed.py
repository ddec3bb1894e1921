"""The job specification of a task that was claimed from the server."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pidml.errors import SpecError, UnknownJob
from pidml.spec.job import JobSpec
from pidml.spec.server_task import job_of_task
from pidml.store import Store


def read_task(store: Store, job_id: int) -> Any:
    """Return the server's task as plain data, from the verbatim copy made when it was claimed.

    Raises:
        UnknownJob: no task of that number was claimed into this store.
        SpecError: the copy is not JSON.
    """
    path = store.job(job_id) / "task.json"
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UnknownJob(
            f"no task {job_id} was claimed into {store.root}", "`pidml status` lists claimed tasks"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SpecError(
            f"{path}: the server's answer is not JSON: {error}", "ask the server's administrator"
        ) from error


def load_claimed_job(store: Store, job_id: int, environment: Mapping[str, str] = os.environ) -> JobSpec:
    """Return the specification of a claimed task.

    Args:
        store: where it was claimed to.
        job_id: the server's number of the task.
        environment: ``PIDML_FILE_ROOTS`` and ``PIDML_PRODUCER`` of this machine count.

    Raises:
        UnknownJob, SpecError, PathRefused: see :func:`pidml.spec.server_task.job_of_task`.
    """
    roots = [Path(root) for root in environment.get("PIDML_FILE_ROOTS", "").split(":") if root]
    return job_of_task(read_task(store, job_id), roots, environment.get("PIDML_PRODUCER") or "native")
