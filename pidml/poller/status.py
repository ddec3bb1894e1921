"""How this machine and its jobs are, read from the files in the store, whether a poller runs or not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidml.alicetraint.jobs import JobDirectory, State, all_jobs, read_json
from pidml.alicetraint.outbox import waiting
from pidml.errors import StoreError
from pidml.poller.claiming import read_book
from pidml.poller.lock import poller_running
from pidml.poller.surroundings import heartbeat_path
from pidml.settings import Settings

#: A poller writes a sign of life at least this often, whatever it does; older means that it hangs.
STALE_SECONDS = 1800.0


@dataclass(frozen=True)
class JobStatus:
    """One claimed job, in words.

    Attributes:
        task_id: the task's number.
        state: claimed, running, waiting (to be tried again), completed or failed.
        step: the step it is in, or failed in.
        progress: fraction of that step from 0 to 1, if known.
        age: time since it was claimed.
        detail: the reason of a failure, what waits to be sent, or what the step says.
    """

    task_id: int
    state: str
    step: str
    progress: float | None
    age: str
    detail: str


@dataclass(frozen=True)
class MachineStatus:
    """A machine and its jobs.

    Attributes:
        headline: machine, server and poller on one line.
        warnings: what somebody should look at, one line each.
        poller_running: whether a poller works on the store.
        heartbeat: the poller's last sign of life (see :func:`pidml.poller.surroundings.publish`), or ``None``.
        jobs: claimed jobs, newest first.
    """

    headline: str
    warnings: list[str]
    poller_running: bool
    heartbeat: dict[str, Any] | None
    jobs: list[JobStatus]


def status(settings: Settings) -> MachineStatus:
    """Return how this machine and its jobs are."""
    running = poller_running(settings.store)
    sign = read_json(heartbeat_path(settings.store))
    jobs = [_job_status(job) for job in reversed(all_jobs(settings.store))]
    return MachineStatus(_headline(settings, running, sign), _warnings(settings.store, running), running, sign, jobs)


def _warnings(store: Path, running: bool) -> list[str]:
    """Tell of claims without an answer, from the file that outlives every poller."""
    try:
        book = read_book(store)
    except StoreError as error:
        return [str(error)]
    found = []
    if book is not None and book.possibly_lost:
        last = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(book.last_lost))
        found.append(
            f"{book.possibly_lost} tasks may have been assigned without arriving, the last on {last}: "
            "look on the server for tasks of this machine that stay in Training, and queue them again"
        )
    if book is not None and (book.unanswered or (book.asked and not running)):
        found.append("the last question for a task has no answer yet")
    return found


def _headline(settings: Settings, running: bool, sign: dict[str, Any] | None) -> str:
    machine = "no machine" if settings.machine_id is None else f"machine {settings.machine_id}"
    parts = [f"{machine} of {settings.base_url or 'no server'}"]
    if sign is None:
        parts.append("no poller has run here")
    else:
        ago = duration(time.time() - float(sign.get("time", 0)))
        doing = f"poller {sign.get('doing')} (process {sign.get('pid')}), last sign of life {ago} ago"
        parts.append(doing if running else f"poller not running, last sign of life {ago} ago")
        if running and time.time() - float(sign.get("time", 0)) > STALE_SECONDS:
            parts.append("it seems to hang")
    return ", ".join([*parts, f"store {settings.store}"])


def _job_status(job: JobDirectory) -> JobStatus:
    try:
        state, progress = job.state(), read_json(job.progress_file) or {}
    except StoreError as error:
        return JobStatus(job.task_id, "damaged", "", None, "", error.what)
    reason = state.reason or {}
    step = str(reason.get("step") or progress.get("step") or "")
    return JobStatus(
        job.task_id, _word(state), step, _fraction(progress), duration(time.time() - state.claimed), _detail(job, state)
    )


def _word(state: State) -> str:
    if state.outcome is not None:
        return state.outcome if state.phase == "reported" else f"{state.outcome}, not reported"
    return "waiting" if state.phase == "claimed" and state.reason else state.phase


def _detail(job: JobDirectory, state: State) -> str:
    parts = []
    if state.reason:
        parts.append(f"[{state.reason.get('code')}] {state.reason.get('what')}")
    if state.phase == "claimed" and state.not_before > time.time():
        parts.append(f"tried again in {duration(state.not_before - time.time())}")
    if owed := waiting(job):
        parts.append(f"{owed} items wait to be sent")
    progress = read_json(job.progress_file) or {}
    if state.phase == "running" and progress.get("text"):
        parts.append(str(progress["text"]))
    return "; ".join(parts)


def _fraction(progress: dict[str, Any]) -> float | None:
    done, total = progress.get("done"), progress.get("total")
    if not isinstance(done, (int, float)) or not isinstance(total, (int, float)) or total <= 0:
        return None
    return min(max(done / total, 0.0), 1.0)


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> duration(5), duration(150), duration(9000), duration(200000)
    ('5 s', '2 min', '2.5 h', '2.3 d')
    """
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 7200:
        return f"{seconds // 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def job_log(store: Path, task_id: int) -> Path:
    """Return the log of a claimed job's processes."""
    return store / "jobs" / str(task_id) / "law.log"
