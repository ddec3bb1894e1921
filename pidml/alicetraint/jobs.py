"""Claimed jobs on the disk: ``<store>/jobs/<task id>/``.

``task.json``      the server's answer, byte for byte, written durably before anything else is done with it
``state.json``     where the job stands (:class:`State`)
``receipts/``      one file per upload and status that the server has
``pending/``       the outbox: what it does not have yet, in order
``refused/``       what it does not want
``logs/``          logs of steps; those without a receipt are uploaded when the job fails
``law.log``        what the job's process printed
``heartbeat.json`` written by the poller while the job runs; ``progress.json`` by the steps
``failure.json``   written by a failing step: why
``stop``           exists while the poller waits for the job to reach a safe point
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pidml.atomic import atomic_directory, atomic_file, is_temporary, write_json
from pidml.errors import ConfigError, SpecError, StoreError, UnknownJob
from pidml.settings import ServerAddress

Phase = Literal["claimed", "running", "finished", "reported"]
PHASES: tuple[Phase, ...] = ("claimed", "running", "finished", "reported")
#: Environment variable that tells a job's processes their job directory.
JOB_DIR_VARIABLE = "PIDML_JOB_DIR"


@dataclass(frozen=True)
class State:
    """Where a job stands; times in seconds since the epoch.

    Attributes:
        phase: ``claimed`` (to be run, perhaps again), ``running``, ``finished`` (its end is known, the server may not
            know it yet) or ``reported`` (nothing is owed).
        outcome: ``completed`` or ``failed``, once finished.
        reason: why it failed, or why it is tried again: ``{"code", "what", "hint", "step"}``.
        claim_key: idempotency key of the claim.
        claimed: when it was claimed.
        started: when it was last started.
        finished: when its end was known.
        not_before: when it may be tried again.
        attempts: tries in a row that failed for a reason that may pass, without progress between them.
        lives: deaths of the poller in a row while it ran, without progress between them.
        progress: mark of how far it had come (:meth:`JobDirectory.progress_mark`) when these two were counted.
        runs: how often it was started.
    """

    phase: Phase = "claimed"
    outcome: Literal["completed", "failed"] | None = None
    reason: dict[str, Any] | None = None
    claim_key: str = ""
    claimed: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    not_before: float = 0.0
    attempts: int = 0
    lives: int = 0
    progress: str = ""
    runs: int = 0

    def but(self, **changes: Any) -> State:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class JobDirectory:
    """The directory of one claimed job."""

    path: Path
    task_id: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "task_id", int(self.path.name))

    @property
    def task_file(self) -> Path:
        """The server's answer, verbatim."""
        return self.path / "task.json"

    @property
    def log_file(self) -> Path:
        """What the job's process printed."""
        return self.path / "law.log"

    @property
    def failure_file(self) -> Path:
        """Why a step failed, written by the step: ``{"code", "what", "hint", "step"}``."""
        return self.path / "failure.json"

    @property
    def progress_file(self) -> Path:
        """How far the job is, written by its steps; see :func:`write_progress`."""
        return self.path / "progress.json"

    @property
    def heartbeat_file(self) -> Path:
        """A sign of life, written by the poller while the job runs."""
        return self.path / "heartbeat.json"

    @property
    def stop_file(self) -> Path:
        """Exists while the job is asked to end at the next safe point."""
        return self.path / "stop"

    @property
    def logs(self) -> Path:
        """Logs of steps."""
        return self.path / "logs"

    def exists(self) -> bool:
        """Tell whether the job is claimed."""
        return self.task_file.is_file()

    def state(self) -> State:
        """Return where the job stands.

        Raises:
            StoreError: ``state.json`` is damaged.
        """
        value = read_json(self.path / "state.json")
        if value is None:
            return State()
        try:
            known = {key: value[key] for key in State.__dataclass_fields__ if key in value}
            state = State(**known)
        except TypeError as error:
            raise StoreError(f"{self.path / 'state.json'} is damaged: {error}", "restore or remove it") from error
        if state.phase not in PHASES:
            raise StoreError(f"{self.path / 'state.json'}: unknown phase {state.phase!r}", "restore or remove it")
        return state

    def save(self, state: State) -> State:
        """Write down durably where the job stands, and return it."""
        write_json(self.path / "state.json", asdict(state))
        return state

    def claim(self) -> dict[str, Any]:
        """Return the server's task.

        Raises:
            SpecError: it is not a JSON object, or nested beyond reason.
        """
        try:
            task = json.loads(self.task_file.read_bytes())
        except RecursionError:
            raise SpecError(
                "the server's task is nested too deep to be read", "ask the server's administrator"
            ) from None
        except ValueError as error:
            raise SpecError(f"the server's task is not JSON: {error}", "ask the server's administrator") from None
        if not isinstance(task, dict):
            raise SpecError("the server's task is not a JSON object", "ask the server's administrator")
        return task

    def progress_mark(self) -> str:
        """Return a text that changes when the job gets further: uploads acknowledged, or progress that steps tell."""
        receipts = self.path / "receipts"
        count = sum(1 for _ in receipts.iterdir()) if receipts.is_dir() else 0
        told = read_json(self.progress_file) or {}
        return f"{count} {told.get('step', '')} {told.get('done', '')}"


def jobs_dir(store: Path) -> Path:
    """Return the directory of all claimed jobs."""
    return store / "jobs"


def job_directory(store: Path, task_id: int) -> JobDirectory:
    """Return the directory of a job, which need not exist."""
    return JobDirectory(jobs_dir(store) / str(task_id))


def claimed_job(store: Path, task_id: int) -> JobDirectory:
    """Return the directory of a claimed job.

    Raises:
        UnknownJob: this machine has not claimed it.
    """
    job = job_directory(store, task_id)
    if not job.exists():
        known = ", ".join(str(other.task_id) for other in all_jobs(store)) or "none"
        raise UnknownJob(f"no task {task_id} is claimed in {store}", f"claimed tasks: {known}")
    return job


def claimed_job_path(store: Path, task_id: int) -> Path:
    """Return the file that holds the server's answer for a claimed task.

    Raises:
        UnknownJob: this machine has not claimed it.
    """
    return claimed_job(store, task_id).task_file


def read_claim(store: Path, task_id: int) -> dict[str, Any]:
    """Return a claimed task as the server gave it, for :func:`pidml.spec.server_task.job_of_task`.

    Raises:
        UnknownJob: this machine has not claimed it.
        SpecError: it is not a JSON object.
    """
    return claimed_job(store, task_id).claim()


def all_jobs(store: Path) -> list[JobDirectory]:
    """Return the claimed jobs by number."""
    return sorted(_job_directories(store), key=lambda job: job.task_id)


def _job_directories(store: Path) -> Iterator[JobDirectory]:
    folder = jobs_dir(store)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.isascii() and path.name.isdigit() and (path / "task.json").is_file():
            yield JobDirectory(path)


def store_claim(store: Path, task_id: int, raw: bytes, claim_key: str) -> JobDirectory:
    """Write a task just claimed down, durably and at once: after this returns no power cut loses it.

    A task that is here already keeps its directory, unless the server gives the number anew: then what the job sent
    stays known, and it is run again; if its content changed, the old directory is set aside.
    """
    job = job_directory(store, task_id)
    fresh = State(claim_key=claim_key, claimed=time.time())
    if job.exists():
        state = job.state()
        same = job.task_file.read_bytes() == raw
        if same and (state.claim_key == claim_key or state.phase in ("claimed", "running")):
            return job
        if same:
            _forget_statuses(job)
            job.save(fresh.but(runs=state.runs))
            return job
        _set_aside(job)
    with atomic_directory(job.path) as folder:
        (folder / "task.json").write_bytes(raw)
        write_json(folder / "state.json", asdict(fresh))
    return job


def _forget_statuses(job: JobDirectory) -> None:
    for receipt in (job.path / "receipts").glob("status-*.json"):
        receipt.unlink()


def _set_aside(job: JobDirectory) -> None:
    old = job.path.parent / "superseded"
    old.mkdir(exist_ok=True)
    job.path.rename(old / f"{job.path.name}-{time.time_ns()}")


def bind_server(store: Path, address: ServerAddress) -> None:
    """Make sure that this store's jobs are those of one machine on one server, and remember which.

    Raises:
        ConfigError: the store belongs to another machine or server.
    """
    path = jobs_dir(store) / "server.json"
    mine = {"base_url": address.base_url, "machine_id": address.machine_id}
    bound = read_json(path)
    if bound is None:
        write_json(path, mine)
    elif bound != mine:
        raise ConfigError(
            f"the jobs in {store} are those of machine {bound.get('machine_id')} on {bound.get('base_url')}, "
            f"not of machine {address.machine_id} on {address.base_url}",
            f"set PIDML_STORE to another place; if the server only moved, remove {path}",
        )


def write_progress(job_dir: Path | str, step: str, done: float, total: float | None = None, text: str = "") -> None:
    """Tell the poller (and ``pidml status``) how far a step is. Cheap: it is not flushed to the disk.

    Args:
        job_dir: the job's directory (``PIDML_JOB_DIR``).
        step: the step's name.
        done: how much of it is done (epochs, files, tracks …).
        total: out of how much, if known.
        text: one line for people.
    """
    path = Path(job_dir) / "progress.json"
    temporary = path.with_name(f".progress.tmp-{time.time_ns()}.json")
    value = {"step": step, "done": done, "total": total, "text": text, "time": time.time()}
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)


def stop_requested(job_dir: Path | str) -> bool:
    """Tell whether the poller asks the job to save what it has and end (checked by steps between epochs)."""
    return (Path(job_dir) / "stop").exists()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or ``None`` if there is no such file.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error}", "restore or remove it") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds no JSON object", "restore or remove it")
    return value


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` atomically and durably."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def remove_temporaries(folder: Path) -> None:
    """Remove unfinished writes that a killed process left in ``folder``."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_temporary(path) and path.is_file():
            path.unlink(missing_ok=True)
