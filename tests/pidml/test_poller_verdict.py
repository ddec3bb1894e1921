"""What the end of a job means, and when it is tried again."""

import json

import pytest

from pidml.alicetraint.jobs import State, store_claim
from pidml.errors import (
    BatchError,
    BatchUnavailable,
    ChecksumMismatch,
    DiskFull,
    DownloadError,
    InputMissing,
    PidmlError,
    ServerError,
    SpecError,
    TrainingError,
)
from pidml.poller.verdict import Reason, after_retry, due_in, judge
from pidml.settings import PollerLimits

LIMITS = PollerLimits(retry=60)
REASON = Reason("P300", "gone")


@pytest.fixture
def job(tmp_path):
    return store_claim(tmp_path, 1, b'{"ID": 1}', "key")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((0, "completed"), (10, "retry"), (20, "retry"), (137, "retry"), (143, "retry")),
        *((code, "failed") for code in (1, 2, 40, 50, 60, 127)),
    ],
)
def test_exit_codes(job, code, kind):
    verdict = judge(job, code)
    assert verdict.kind == kind
    assert (verdict.reason is None) == (code == 0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DownloadError, "retry"),
        (ChecksumMismatch, "retry"),
        (DiskFull, "retry"),
        (ServerError, "retry"),
        (BatchUnavailable, "retry"),
        (BatchError, "failed"),
        (InputMissing, "failed"),
        (SpecError, "failed"),
        (TrainingError, "failed"),
    ],
)
def test_what_a_step_says_decides(job, error: type[PidmlError], kind):
    said = {"code": error.code, "what": "w", "hint": "h", "step": "Train", "log": None}
    job.failure_file.write_text(json.dumps(said))
    assert judge(job, 40) == judge(job, 60)
    assert (judge(job, 40).kind, judge(job, 40).reason) == (kind, Reason(error.code, "w", "h", "Train"))


def test_an_unexpected_error_of_a_step_has_the_exit_code_for_a_code(job):
    job.failure_file.write_text(json.dumps({"code": "", "what": "ValueError: x", "hint": "", "step": "Train"}))
    assert (judge(job, 40).kind, judge(job, 40).reason) == ("failed", Reason("exit 40", "ValueError: x", "", "Train"))


@pytest.mark.parametrize("text", ["", '{"code": "P30', "[]", "\0" * 10])
def test_half_a_reason_is_no_reason(job, text):
    job.failure_file.write_text(text)
    assert judge(job, 137).reason.code == "exit 137"


def test_pauses_grow_fourfold_and_start_again_after_progress():
    state, pauses = State(), []
    for mark in ["a", "a", "a", "b", "b"]:
        state = after_retry(state, mark, REASON, LIMITS, now=1000.0)
        pauses.append(state.not_before - 1000.0)
    assert pauses == [60, 240, 960, 60, 240]
    assert state.attempts == 2
    many = State(attempts=500, progress="a")
    assert after_retry(many, "a", REASON, LIMITS, now=0).not_before == 6 * 3600


@pytest.mark.parametrize(("now", "left"), [(1000, 60), (1059, 1), (1061, 0), (10**9, 0), (-(10**9), 0)])
def test_a_clock_that_jumps_does_not_stop_a_job_for_long(now, left):
    assert due_in(State(not_before=1060.0), now) == left


def test_a_batch_system_that_is_away_uses_up_no_tries():
    away, state = Reason("P911", "sinfo does not answer"), State(attempts=2, progress="a")
    for _ in range(50):
        state = after_retry(state, "a", away, LIMITS, now=1000.0)
    assert (state.attempts, state.not_before) == (2, 1240.0)
    assert after_retry(state, "a", REASON, LIMITS, now=1000.0).attempts == 3
