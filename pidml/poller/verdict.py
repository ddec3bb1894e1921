"""What the end of a job's process means: completed, failed for good, or worth another try.

===============================  =============================================================================
what is seen                     what is done
===============================  =============================================================================
exit code 0                      completed, once every result is on the server
``failure.json`` with a code of  tried again: after ``retry`` seconds, then four times that, and so on; ``attempts``
:data:`TRANSIENT_CODES`          tries without progress between them, then failed
code P911 (the batch system is   tried again after four times ``retry``, as often as it takes: nobody's job is to fail
away)                            because a scheduler is maintained
exit code 10 or 20               the same (another process runs the job; external data are missing)
ended by a signal (128 + n)      the same (out of memory, an operator's kill)
too little room on the disk      the same
anything else                    failed at once: running it again gives the same result
===============================  =============================================================================
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pidml.alicetraint.jobs import JobDirectory, State, read_json
from pidml.errors import TRANSIENT_CODES, BatchUnavailable, DiskFull, PidmlError, StoreError
from pidml.settings import PollerLimits

#: Exit codes of ``law run`` that may pass: the job runs already, external data are missing.
TRANSIENT_EXITS = frozenset({10, 20})
_GROWTH = 4.0
_LONGEST_PAUSE = 6 * 3600.0
_LAW_EXITS = {
    1: "an unknown task",
    2: "an unknown option",
    10: "the job is running already",
    20: "external data are missing",
    40: "a step failed",
    50: "requirements or completeness of a step cannot be found out",
    60: "an unexpected error in law",
    127: "the program cannot be started",
}


@dataclass(frozen=True)
class Reason:
    """Why a job failed or is tried again.

    Attributes:
        code: stable error code, or ``exit N``.
        what: what failed.
        hint: what to do about it.
        step: the step that failed, if known.
    """

    code: str
    what: str
    hint: str = ""
    step: str = ""

    @classmethod
    def of(cls, error: PidmlError, step: str = "") -> Reason:
        """Return the reason that an error of ours gives."""
        return cls(error.code, error.what, error.hint, step)

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """What to do with a job: ``completed``, ``failed``, ``retry`` (later) or ``resume`` (after the next start)."""

    kind: Literal["completed", "failed", "retry", "resume"]
    reason: Reason | None = None


def judge(job: JobDirectory, exit_code: int) -> Verdict:
    """Return what a process's exit code and the reason its steps left mean."""
    if exit_code == 0:
        return Verdict("completed")
    reason = _told(job, exit_code) or _of_exit(exit_code)
    by_signal = exit_code > 128 and reason.code.startswith("exit")
    transient = reason.code in TRANSIENT_CODES or exit_code in TRANSIENT_EXITS or by_signal
    return Verdict("retry" if transient else "failed", reason)


def _told(job: JobDirectory, exit_code: int) -> Reason | None:
    try:
        value = read_json(job.failure_file)
    except StoreError:
        return None  # half a file of a step that was killed says less than the exit code
    if value is None:
        return None
    told = Reason(*(str(value.get(key) or "") for key in ("code", "what", "hint", "step")))
    return told if told.code else replace(told, code=f"exit {exit_code}")


def _of_exit(exit_code: int) -> Reason:
    if exit_code > 128:
        return Reason(f"exit {exit_code}", f"the job was ended by signal {exit_code - 128}", "out of memory, perhaps")
    said = _LAW_EXITS.get(exit_code, "see the log below")
    return Reason(f"exit {exit_code}", f"the job ended with exit code {exit_code}: {said}")


def no_room(error: DiskFull) -> Verdict:
    """Return what to do with a job for which there is no room now."""
    return Verdict("retry", Reason.of(error))


def after_retry(state: State, progress: str, reason: Reason, limits: PollerLimits, now: float) -> State:
    """Return the state of a job to be tried again, or of one whose tries are used up (phase stays for the caller)."""
    attempts = 1 if progress != state.progress else state.attempts + 1
    pause = min(limits.retry * _GROWTH ** min(attempts - 1, 20), _LONGEST_PAUSE)
    if reason.code == BatchUnavailable.code:
        attempts, pause = state.attempts, min(limits.retry * _GROWTH, _LONGEST_PAUSE)
    return state.but(
        phase="claimed", attempts=attempts, progress=progress, not_before=now + pause, reason=reason.plain()
    )


def due_in(state: State, now: float) -> float:
    """Return the seconds until a job may be tried; a clock that was set back does not make it wait for ever."""
    left = state.not_before - now
    return 0.0 if left <= 0 or left > _LONGEST_PAUSE else left
