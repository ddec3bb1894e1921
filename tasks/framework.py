"""What every step has in common: the job, the identity of its output, atomic publication, log and provenance."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import law
import luigi

from pidml import provenance, steplog
from pidml.atomic import atomic_directory, exclusive
from pidml.errors import PidmlError, SpecError, StepKilled
from pidml.identity import digest
from pidml.spec import JobSpec, load_job
from pidml.spec.claimed import load_claimed_job
from pidml.store import Store, index_key
from tasks.index import renew_index
from tasks.jobstate import note_failure, note_progress
from tasks.messages import shown_once, was_shown
from tasks.targets import OutputDirectory

#: Value of ``job_id`` for a job of one's own.
NO_JOB: int = law.NO_INT
#: Value of ``branch`` of a workflow, which only collects its branches.
WORKFLOW = -1


class JobTask(law.Task):
    """A task that belongs to a training job.

    A subclass names in ``reads`` the fields of the job specification that it reads, and in :meth:`upstream` the tasks
    whose outputs it reads. The digest over both (and ``version``, raised when the code changes what comes out) is the
    address of its output, so nothing else can make it run again.
    """

    job = luigi.Parameter(default="", description="a preset's name or the path of a YAML or JSON job file")
    job_id = luigi.IntParameter(
        default=NO_JOB, description="number of a task claimed from the server, instead of --job"
    )

    exclude_index = True
    exclude_params_repr: ClassVar[set[str]] = {"wrap_once", "effective_workflow"}
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    #: Called with each task that is to run, the one that was named first, before any of them does.
    looks: ClassVar[list[Callable[[JobTask], None]]] = []

    def deps(self) -> list[Any]:
        """What must be complete before; luigi asks when it plans, and plans nothing if this fails."""
        for look in JobTask.looks:
            look(self)
        return list(super().deps())

    def _repr_params(self, all_params: bool = False) -> dict[str, Any]:
        """Leave out, of the two ways to name a job, the one that was not used."""
        params: dict[str, Any] = super()._repr_params(all_params)
        params.pop("job" if self.job == "" else "job_id", None)
        return params

    @cached_property
    def whole_job(self) -> JobSpec:
        """The job's specification, read once: what is made is what the address says, whatever happens to the file."""
        return _spec(self.job, self.job_id, _changed(self.job))

    @property
    def spec(self) -> JobSpec:
        """The specification as this task reads it."""
        return self.whole_job

    @property
    def store(self) -> Store:
        """The store, from ``PIDML_STORE``."""
        return Store.from_environment()

    @property
    def job_key(self) -> str:
        """Name under which the job is indexed."""
        return index_key(self.job if self.job_id == NO_JOB else str(self.job_id))

    @property
    def job_directory(self) -> Path | None:
        """Folder with the state of a job claimed from the server; None for a job of one's own."""
        return None if self.job_id == NO_JOB else self.store.job(self.job_id)

    def settings(self) -> dict[str, Any]:
        """Return the fields named in ``reads`` as plain data."""
        return {path: self.spec.identity(path) for path in self.reads}

    def upstream(self) -> Sequence[JobTask]:
        """Return the tasks whose outputs this one reads."""
        return ()

    @cached_property
    def digest(self) -> str:
        """Address of the output: digest over task, version, settings and the digests upstream."""
        return digest([type(self).__name__, self.version, self.settings(), [task.digest for task in self.upstream()]])

    @property
    def directory(self) -> Path:
        """Directory of this task's output."""
        return self.store.output(type(self).__name__, self.digest)

    @property
    def log_file(self) -> Path:
        """Log of the run that made (or failed to make) the output."""
        return self.store.log(type(self).__name__, self.digest)


class Step(JobTask):
    """A step whose output is one directory, published whole or not at all."""

    exclude_index = True

    #: Globs in the output directory → what the server's page shows them as ("image", "onnx", "log").
    uploads: ClassVar[tuple[tuple[str, str], ...]] = ()
    #: What the names of these files begin with on the server, where all steps' results lie side by side.
    upload_prefix: ClassVar[str] = ""

    @classmethod
    def asked_for(cls, spec: JobSpec) -> bool:  # noqa: ARG003 - for steps that not every job owes
        """Tell whether a job owes this step."""
        return True

    @property
    def resources(self) -> dict[str, int]:
        """What luigi shares out among its workers: one step computes at a time, downloads and uploads go on beside."""
        return {} if getattr(self, "branch", 0) == WORKFLOW else {"compute": 1}

    def requires(self) -> Any:
        """Everything upstream must be complete."""
        return list(self.upstream())

    def output(self) -> OutputDirectory:
        """The output directory; it exists only complete."""
        return OutputDirectory(str(self.directory))

    def make(self, out: Path) -> dict[str, Any] | None:
        """Make the output in the empty directory ``out``; may return facts for the provenance."""
        raise NotImplementedError

    def run(self) -> None:
        """Run :meth:`make` with its log captured, and publish what it made with its provenance."""
        try:
            self._run()
        except BaseException as error:
            if not was_shown(error):  # it happened before the step's log was open
                note_failure(self.job_directory, self.title, error)
            raise

    def _run(self) -> None:
        if getattr(self, "branch", 0) == 0:  # the first branch does it for all
            self.note_outputs()
        with exclusive(self.directory):
            if self.output().exists():
                return  # another process made it while this one waited
            note_progress(self.job_directory, type(self).__name__)
            with steplog.captured(self.log_file):
                self._run_logged()
            self.published()

    def note_outputs(self) -> None:
        """Record in the store's index which outputs belong to the job."""
        renew_index(self)

    def published(self) -> None:
        """Called once the output is in its place: what was kept for resuming may go."""

    def _run_logged(self) -> None:
        started, clock = provenance.now(), time.perf_counter()
        print(f"{started} {self.title} {self.digest} started", flush=True)  # noqa: T201 - the log is the output
        try:
            with atomic_directory(self.directory) as out:
                facts = self.make(out) or {}
                seconds = time.perf_counter() - clock
                self._write_provenance(out, facts, started, seconds)
        except BaseException as error:
            self._explain(error)
            raise
        print(f"{provenance.now()} {self.title} {self.digest} finished in {seconds:.1f} s", flush=True)  # noqa: T201

    @property
    def title(self) -> str:
        """Name of the step for people."""
        branch = getattr(self, "branch", -1)
        return type(self).__name__ + (f"[{branch}]" if isinstance(branch, int) and branch >= 0 else "")

    def _write_provenance(self, out: Path, facts: dict[str, Any], started: str, seconds: float) -> None:
        provenance.write_provenance(
            out,
            task=type(self).__name__,
            version=self.version,
            digest=self.digest,
            settings=self.settings(),
            inputs=[{"task": type(task).__name__, "digest": task.digest} for task in self.upstream()],
            seed=self.spec.seed,
            started=started,
            seconds=round(seconds, 3),
            facts=facts,
        )

    def _explain(self, error: BaseException) -> None:
        """Say in the log what failed, and leave the reason where the poller finds it."""
        if isinstance(error, PidmlError):
            print(f"{self.title} failed: {error}", file=sys.stderr, flush=True)  # noqa: T201
        elif not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        note_failure(self.job_directory, self.title, error, self.log_file)
        shown_once(error)


@JobTask.event_handler(luigi.Event.PROCESS_FAILURE)
def _process_killed(task: JobTask, message: str) -> None:
    """Leave the reason for the poller where a step's process could not do so itself."""
    title = getattr(task, "title", type(task).__name__)
    error = StepKilled(f"{title}: {message}", "see the memory of the machine; the job is tried again")
    note_failure(task.job_directory, title, error)


def _changed(job: str) -> int:
    """When a job file last changed, so that an edited file is read again."""
    try:
        return Path(job).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache
def _spec(job: str, job_id: int, changed: int) -> JobSpec:  # noqa: ARG001 - part of the cache's key
    if (job == "") == (job_id == NO_JOB):
        raise SpecError("which job? exactly one of --job and --job-id is needed", "for example: --job sandbox")
    return load_job(job) if job else load_claimed_job(Store.from_environment(), job_id)
