"""Run one claimed job as a process: environment, supervision, and how it ended."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pidml.alicetraint.jobs import JOB_DIR_VARIABLE, JobDirectory
from pidml.batch.leftover import cancel_jobs_of
from pidml.errors import DiskFull, PidmlError
from pidml.law_command import law_command, law_environment
from pidml.poller.disk import check_room, free_bytes
from pidml.poller.process import TERM_SECONDS, JobProcess, end_leftovers
from pidml.poller.signals import Signals
from pidml.poller.verdict import Reason, Verdict, judge, no_room
from pidml.secret import mask_file
from pidml.settings import Settings
from pidml.store import index_key

logger = logging.getLogger(__name__)

#: Builds the command line of a job.
Command = Callable[[JobDirectory], Sequence[str]]


def training_job(job: JobDirectory) -> list[str]:
    """Return the command that runs a job with law."""
    return law_command("TrainingJob", ["--job-id", str(job.task_id)])


def job_environment(job: JobDirectory, settings: Settings) -> dict[str, str]:
    """Return the environment of a job's processes; the only way on which they get the machine's key."""
    here = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    ours = settings.environment() | {JOB_DIR_VARIABLE: str(job.path), "PYTHONUNBUFFERED": "1"}
    return law_environment(settings.store, here | ours)


class Supervision:
    """Watches a running job: heartbeat, disk, wall clock and stop signals.

    Args:
        job: the job.
        settings: the machine's settings.
        signals: stop signals.
        meanwhile: called every heartbeat, for what else is to do while the job runs.
    """

    def __init__(
        self, job: JobDirectory, settings: Settings, signals: Signals, meanwhile: Callable[[], None] | None = None
    ) -> None:
        self.job = job
        self.settings = settings
        self.limits = settings.limits
        self.signals = signals
        self._meanwhile = meanwhile
        self._out_of_time = False
        self._stopping_since: float | None = None
        self._ending_since: float | None = None
        self._verdict: Verdict | None = None

    def run(self, command: Sequence[str]) -> Verdict:
        """Start the job, wait for its end, and say what is to be done with it."""
        self.job.stop_file.unlink(missing_ok=True)
        self.job.failure_file.unlink(missing_ok=True)
        try:
            process = JobProcess(
                command,
                env=job_environment(self.job, self.settings),
                cwd=self.settings.store,
                log_file=self.job.log_file,
            )
        except PidmlError as error:
            return Verdict("retry", Reason.of(error))
        except OSError as error:
            return Verdict("retry", Reason("exit 127", f"cannot start {command[0]}: {error.strerror}"))
        try:
            self._watch(process)
        finally:
            process.end()
            code = process.finish()
            if process.guard_killed:
                end_leftovers(self.job.path)
            if self._out_of_time:
                self._cancel_batch_jobs()
            self.job.stop_file.unlink(missing_ok=True)
            self._mask_log()
        if code == 0:
            return Verdict("completed")
        return self._verdict or judge(self.job, code)

    def _cancel_batch_jobs(self) -> None:
        """A job that has failed for its time waits for nothing: what it left on a batch system would run for nobody."""
        try:
            count = cancel_jobs_of(self.settings.store, index_key(str(self.job.task_id)))
        except PidmlError as error:
            logger.error("task %d: its jobs stay on the batch system: %s", self.job.task_id, error)
        else:
            logger.info("task %d: %d of its jobs were taken off the batch system", self.job.task_id, count)

    def _mask_log(self) -> None:
        if self.settings.secret is not None and mask_file(self.job.log_file, self.settings.secret):
            logger.error("task %d printed this machine's key; it is masked in %s", self.job.task_id, self.job.log_file)

    def _watch(self, process: JobProcess) -> None:
        next_beat = 0.0
        while not process.ended():
            now = time.monotonic()
            if now >= next_beat:
                self._beat(process)
                next_beat = now + self.limits.heartbeat
            self._check_signals(process)
            self.signals.wait(self._until_next(next_beat), process.pidfd)

    def _until_next(self, next_beat: float) -> float:
        moments = [next_beat]
        if self._ending_since is not None:
            moments.append(self._ending_since + 2 * TERM_SECONDS)
        elif self._stopping_since is not None:
            moments.append(self._stopping_since + self.limits.grace)
        return max(0.0, min(moments) - time.monotonic())

    def _beat(self, process: JobProcess) -> None:
        elapsed = time.monotonic() - process.started
        try:
            heartbeat(self.job, process.pid, elapsed, free_bytes(self.settings.store))
            check_room(self.settings.store, self.limits.min_free)
        except DiskFull as error:
            self._end(process, no_room(error))
        if self.limits.wall_clock and elapsed > self.limits.wall_clock:
            hours = self.limits.wall_clock / 3600
            what = f"the job ran longer than {hours:g} h"
            self._out_of_time = True
            self._end(process, Verdict("failed", Reason("P600", what, "make it smaller, or raise PIDML_JOB_HOURS")))
        if self._meanwhile is not None:
            self._meanwhile()

    def _check_signals(self, process: JobProcess) -> None:
        now = time.monotonic()
        if self.signals.stops and self._stopping_since is None:
            self._stopping_since = now
            self._verdict = self._verdict or Verdict("resume")
            self.job.stop_file.touch()
        if self._stopping_since is not None and (
            self.signals.stops > 1 or now - self._stopping_since >= self.limits.grace
        ):
            self._end(process, Verdict("resume"))
        if self._ending_since is not None and now - self._ending_since >= 2 * TERM_SECONDS:
            process.kill()

    def _end(self, process: JobProcess, verdict: Verdict) -> None:
        if self._ending_since is None:
            self._ending_since = time.monotonic()
            self._verdict = self._verdict or verdict
            process.end()


def heartbeat(job: JobDirectory, pid: int, elapsed: float, free: int) -> None:
    """Write the sign of life of a running job; replaced in one go, not flushed to the disk."""
    value = {"time": time.time(), "pid": pid, "elapsed_s": round(elapsed, 1), "disk_free_bytes": free}
    write_light(job.heartbeat_file, json.dumps(value) + "\n")


def write_light(path: Path, text: str) -> None:
    """Replace a small file in one go without flushing it: what it says is outdated after a power cut anyway.

    Raises:
        DiskFull: the disk is full.
    """
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DiskFull(f"cannot write {path}: {error.strerror}", "free some space") from error
