"""Whether a claimed job can be started at all."""

from __future__ import annotations

import logging

from pidml.alicetraint.jobs import JobDirectory, State
from pidml.errors import DiskFull, PidmlError, SpecError
from pidml.poller.disk import can_never_fit, check_room, needed_bytes
from pidml.poller.verdict import Reason, Verdict
from pidml.settings import Settings
from pidml.spec import job_of_task

logger = logging.getLogger(__name__)


def refusal(job: JobDirectory, state: State, settings: Settings) -> Verdict | None:
    """Return why a job cannot be started: its specification is wrong, its data have no labels, or there is no room."""
    try:
        spec = job_of_task(job.claim(), settings.file_roots, settings.producer)
        spec.check_labels()
        needed = needed_bytes(spec) if state.runs == 0 else 0
        if can_never_fit(settings.store, settings.limits.min_free, needed):
            what = f"the task's files ({needed / 1e9:.0f} GB with tables) exceed this machine's whole disk"
            return Verdict("failed", Reason(DiskFull.code, what, "train on fewer files, or use another machine"))
        check_room(settings.store, settings.limits.min_free, needed)
    except DiskFull as error:
        return Verdict("retry", Reason.of(error))
    except PidmlError as error:
        return Verdict("failed", Reason.of(error))
    except Exception as error:
        logger.exception("task %d cannot be understood", job.task_id)
        what = f"the task cannot be understood: {type(error).__name__}: {str(error)[:300]}"
        return Verdict("failed", Reason(SpecError.code, what, "ask the server's administrator"))
    return None
