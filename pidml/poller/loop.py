"""The poller: claim, write down, run, report; one job at a time, for ever or until the queue is empty."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing

from pidml.alicetraint.client import AliceTraINTClient
from pidml.alicetraint.jobs import JobDirectory, State, bind_server
from pidml.alicetraint.transport import Retry
from pidml.errors import (
    AnswerLost,
    ConfigError,
    DiskFull,
    PathRefused,
    PidmlError,
    ServerError,
    SpecError,
    StoreError,
)
from pidml.poller.admission import refusal
from pidml.poller.claiming import Claims
from pidml.poller.disk import check_room
from pidml.poller.failure import failure_log, report_end, write_failure_log
from pidml.poller.lock import only_poller
from pidml.poller.logs import hide
from pidml.poller.pace import Pace
from pidml.poller.recovery import end_containers, open_jobs, recover
from pidml.poller.run import Command, Supervision, training_job
from pidml.poller.signals import Signals
from pidml.poller.surroundings import Complaints, Counts, publish
from pidml.poller.verdict import Reason, Verdict, after_retry, due_in
from pidml.settings import Settings

logger = logging.getLogger(__name__)


def poll(
    settings: Settings,
    *,
    once: bool = False,
    drain: bool = False,
    command: Command = training_job,
    reload: Callable[[], Settings] | None = None,
) -> Counts:
    """Finish what was claimed, then claim and run tasks; in the main thread, because it handles signals.

    Args:
        settings: the machine's settings.
        once: finish what was claimed, ask for one task, run it, and return.
        drain: the same until no task is queued.
        command: builds a job's command line.
        reload: reads the settings anew on SIGHUP.

    Returns:
        counts of what was done; ``unsent`` jobs are finished, but the server does not know it yet.

    Raises:
        ConfigError: settings are missing, another poller works on the store, or the store is another machine's.
        StoreError: the store cannot be used.
        ServerError: with ``once`` or ``drain``, the server could not be asked.
    """
    hide(settings.server_address().secret)
    complaints = Complaints(logger)
    with Signals() as signals:
        while True:
            try:
                with only_poller(settings.store), closing(Poller(settings, signals, command, reload)) as poller:
                    return poller.run(until_empty=once or drain, at_most=1 if once else None)
            except DiskFull as error:
                if once or drain:
                    raise
                complaints.say(f"the poller cannot start: {error}")
                if signals.pause(settings.limits.wait):
                    return Counts()


class Poller:
    """The state of a running poller; see :func:`poll`."""

    def __init__(
        self, settings: Settings, signals: Signals, command: Command, reload: Callable[[], Settings] | None
    ) -> None:
        self.settings = settings
        self.signals = signals
        self.counts = Counts()
        self._command = command
        self._reload = reload
        self._client = self._new_client()
        bind_server(settings.store, self._client.address)
        self._claims = Claims(settings.store)
        self._complaints = Complaints(logger)
        self._pace = Pace()
        self._next_flush = 0.0
        self._open = open_jobs(settings)

    def _new_client(self) -> AliceTraINTClient:
        return AliceTraINTClient.of_settings(
            self.settings, retry=Retry(attempts=2, longest=10.0), wait=self.signals.pause
        )

    def close(self) -> None:
        """Close connections and leave a last sign of life."""
        self._client.__exit__()
        publish(self.settings, self.counts, self._claims.book, "stopped", None, len(self._open))

    def run(self, until_empty: bool, at_most: int | None) -> Counts:
        """Work until told to stop or, with ``until_empty``, until nothing is to do or ``at_most`` tasks are claimed."""
        self._recover()
        working = True
        while working and not self.signals.stops:
            try:
                working = self._step(until_empty, at_most)
            except (StoreError, OSError) as error:
                if until_empty:
                    raise
                self._complaints.say(f"the store cannot be used now: {error}")
                self._idle(self.settings.limits.wait)
        self._report_finished(now=True)
        self.counts.unsent = len([job for job in self._open if job.state().phase == "finished"])
        return self.counts

    def _step(self, until_empty: bool, at_most: int | None) -> bool:
        """Do one thing: run a job, or ask for one. Tell whether there may be more to do."""
        self._heed_reload()
        self._report_finished()
        # One that is "running" here has ended, but a full disk kept that from being written down: it is run again.
        unfinished = [job for job in self._open if job.state().phase in ("claimed", "running")]
        if unfinished:
            self._work(unfinished[0])
            return True
        if not until_empty:
            self._claim(patient=True)
            return True
        return (at_most is None or self.counts.claimed < at_most) and self._claim(patient=False)

    def _recover(self) -> None:
        """Take up what an earlier life left: end its processes, count its death, and give up a job that kills us."""
        end_containers(self.settings)
        for job in list(self._open):
            if job.state().phase == "running":
                self.counts.recovered += 1
                state, verdict = recover(job, self.settings.limits.lives)
                if verdict is not None:
                    self._finish(job, state, verdict)

    def _work(self, job: JobDirectory) -> None:
        """Run a job that is due, or wait until it is; no other task is claimed meanwhile."""
        state = job.state()
        due = due_in(state, time.time())
        if due > 0:
            self._sign("waiting", job)
            self.signals.pause(min(due, self.settings.limits.heartbeat))
            return
        verdict = refusal(job, state, self.settings) or self._run(job, state)
        self._conclude(job, verdict)

    def _run(self, job: JobDirectory, state: State) -> Verdict:
        failure_log(job).unlink(missing_ok=True)
        state = job.save(state.but(phase="running", started=time.time(), runs=state.runs + 1))
        with job.log_file.open("a", encoding="utf-8") as log:
            log.write(f"--- run {state.runs} at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}\n")
        self._sign("running", job)
        logger.info("task %d starts, run %d", job.task_id, state.runs)

        def meanwhile() -> None:
            self._sign("running", job)
            self._report_finished(except_for=job)

        try:
            return Supervision(job, self.settings, self.signals, meanwhile).run(self._command(job))
        finally:
            end_containers(self.settings)

    def _conclude(self, job: JobDirectory, verdict: Verdict) -> None:
        state = job.state()
        if verdict.kind == "resume":
            job.save(state.but(phase="claimed"))
            logger.info("task %d stops here and is resumed by the next start", job.task_id)
        elif verdict.kind == "retry" and verdict.reason is not None:
            again = after_retry(state, job.progress_mark(), verdict.reason, self.settings.limits, time.time())
            if again.attempts >= self.settings.limits.attempts:
                self._finish(job, again, Verdict("failed", verdict.reason))
            else:
                job.save(again)
                self.counts.retries += 1
                pause = again.not_before - time.time()
                logger.warning("task %d is tried again in %.0f s: %s", job.task_id, pause, verdict.reason.what)
        else:
            self._finish(job, state, verdict)

    def _finish(self, job: JobDirectory, state: State, verdict: Verdict) -> None:
        """Write down how a job ended, then tell the server."""
        now = time.time()
        if verdict.kind == "completed":
            job.save(state.but(phase="finished", outcome="completed", reason=None, finished=now))
            self._pace.failures_in_a_row = 0
        else:
            reason = verdict.reason or Reason("P000", "unknown")
            logger.error("task %d failed: [%s] %s", job.task_id, reason.code, reason.what)
            write_failure_log(job, reason, state, self._client.address.secret)
            job.save(state.but(phase="finished", outcome="failed", reason=reason.plain(), finished=now))
            if reason.code not in (SpecError.code, PathRefused.code):
                self._pace.failures_in_a_row += 1
        self._report(job)

    def _report_finished(self, now: bool = False, except_for: JobDirectory | None = None) -> None:
        """Send what finished jobs still owe, at the pace that the server's state allows."""
        if not now and time.monotonic() < self._next_flush:
            return
        for job in list(self._open):
            if job != except_for and job.state().phase == "finished" and not self._report(job):
                return

    def _report(self, job: JobDirectory) -> bool:
        """Report a finished job; tell whether the server could be spoken to."""
        try:
            state = report_end(job, self._client, job.state())
        except (StoreError, OSError) as error:
            self._complaints.say(f"the end of task {job.task_id} waits to be reported: {error}")
            self._next_flush = time.monotonic() + self.settings.limits.wait
            return False
        except ServerError as error:
            self._complaints.say(f"the end of task {job.task_id} waits to be reported: {error}")
            self._next_flush = time.monotonic() + self._pace.after_error(error, self.settings, self._client)
            return False
        self._spoken()
        if state.phase == "reported":
            self._open.remove(job)
            self.counts.completed += state.outcome == "completed"
            self.counts.failed += state.outcome == "failed"
            logger.info("task %d is reported as %s", job.task_id, state.outcome)
        return True

    def _claim(self, patient: bool) -> bool:
        """Ask for a task; wait if there is none, or (``patient``) if that failed. Tell whether there is one."""
        if patient and (pause := self._pace.before_claim()):
            self._complaints.say(f"{self._pace.failures_in_a_row} tasks failed in a row: pause before the next")
            if self._idle(pause):
                return False
        try:
            check_room(self.settings.store, self.settings.limits.min_free)
            job = self._claims.claim(self._client, self.signals.pause)
        except DiskFull as error:
            if not patient:
                raise
            self._complaints.say(f"no task is claimed: {error}")
            self._idle(self.settings.limits.slow_wait)
            return False
        except ServerError as error:
            again = isinstance(error, AnswerLost) and self._client.repeats_claims and self._pace.server_errors < 5
            if not (patient or again):
                raise
            self._complaints.say(f"no task could be claimed: {error}")
            self._idle(self._pace.after_error(error, self.settings, self._client))
            return not patient
        self._spoken()
        if job is None:
            if patient:
                self._idle(self.settings.limits.wait)
            return False
        if job not in self._open:
            self._open.append(job)
            self.counts.claimed += 1
        return True

    def _idle(self, seconds: float) -> bool:
        """Wait, with a sign of life now and then and the outbox in mind; tell whether to stop."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self.signals.reload:
            self._sign("idle", None)
            if self.signals.pause(min(left, self.settings.limits.heartbeat)):
                return True
            self._report_finished()
        return self.signals.stops > 0

    def _spoken(self) -> None:
        self._pace.server_errors = 0
        self._next_flush = 0.0
        self._complaints.over("the server answers again")

    def _sign(self, doing: str, job: JobDirectory | None) -> None:
        task = job.task_id if job else None
        publish(self.settings, self.counts, self._claims.book, doing, task, len(self._open))

    def _heed_reload(self) -> None:
        if not self.signals.reload:
            return
        self.signals.reload = False
        if self._reload is None:
            return
        try:
            new = self._reload()
            address = new.server_address()
            if new.store != self.settings.store:
                raise ConfigError("PIDML_STORE cannot change while the poller runs", "restart the poller")
            bind_server(new.store, address)
        except PidmlError as error:
            logger.error("the configuration is not reloaded: %s", error)
            return
        self._client.__exit__()
        hide(address.secret)
        self.settings = new
        self._client = self._new_client()
        self._pace = Pace()
        logger.info("the configuration is reloaded")
