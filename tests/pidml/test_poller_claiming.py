"""Claims whose answer is lost: counted durably where the server cannot give a task again, not lost where it can."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from support.fault_proxy import Answer, Drop, LoseAnswer, fault_proxy
from support.machine import fake_command

from pidml.alicetraint.jobs import jobs_dir, store_claim
from pidml.errors import AnswerLost, ServerError, StoreError
from pidml.poller.claiming import Claims, read_book
from pidml.poller.loop import poll
from pidml.poller.status import status


@pytest.fixture
def proxy(machine):
    with fault_proxy(machine.server.url) as running:
        yield running


def never(_seconds: float) -> bool:
    return True


def claim(machine, claims: Claims):
    with machine.client() as client:
        return claims.claim(client, never)


def test_a_lost_answer_is_counted_once_the_server_turns_out_not_to_repeat(machine, proxy):
    first, second = machine.queue(2)
    proxy.hides = {"idempotency-key"}
    proxy.faults = [LoseAnswer()]
    behind, claims = machine.at(proxy.url), Claims(machine.settings.store)
    with pytest.raises(AnswerLost):
        claim(behind, claims)
    assert (claims.book.unanswered, claims.book.possibly_lost) == (1, 0)
    assert "no answer yet" in " ".join(status(machine.settings).warnings)
    assert claim(behind, claims).task_id == second, "the first is lost"
    book = read_book(machine.settings.store)
    assert (book.unanswered, book.possibly_lost, book.asked) == (0, 1, False)
    assert machine.statuses(first)[-1] == "TRAINING"
    [warning] = status(machine.settings).warnings
    assert warning.startswith("1 tasks may have been assigned without arriving, the last on 20")


def test_nothing_is_counted_where_the_server_gives_the_task_again(machine, proxy):
    first, _ = machine.queue(2)
    proxy.faults = [LoseAnswer(), None, LoseAnswer(reset=True), None]
    behind, claims = machine.at(proxy.url), Claims(machine.settings.store)
    for _ in range(2):
        with pytest.raises(AnswerLost):
            claim(behind, claims)
    assert claim(behind, claims).task_id == first
    assert (claims.book.unanswered, claims.book.possibly_lost) == (0, 0)
    assert status(machine.settings).warnings == []


def test_the_count_outlives_the_poller_and_reaches_prometheus(machine, proxy, tmp_path):
    proxy.hides = {"idempotency-key"}
    for _ in range(2):
        proxy.faults = [LoseAnswer()]
        claims = Claims(machine.settings.store)
        with pytest.raises(AnswerLost):
            claim(machine.at(proxy.url), claims)
        assert claim(machine.at(proxy.url), claims) is None
    metrics = tmp_path / "pidml.prom"
    poll(replace(machine.settings, metrics_file=metrics), drain=True, command=fake_command)
    assert "\npidml_poller_claims_possibly_lost_total 2\n" in metrics.read_text()
    assert "\npidml_poller_claims_unanswered 0\n" in metrics.read_text()


@pytest.mark.parametrize(
    ("fault", "error"), [(Answer(503), ServerError), (Answer(429), ServerError), (Answer(401), ServerError)]
)
def test_a_question_that_was_turned_away_is_not_counted(machine, proxy, fault, error):
    claims = Claims(machine.settings.store)
    proxy.choose = lambda method, path: fault
    with pytest.raises(error):
        claim(machine.at(proxy.url), claims)
    assert (claims.book.asked, claims.book.unanswered) == (False, 0)
    with pytest.raises(ServerError):
        claim(machine.at("http://127.0.0.1:9"), claims)
    assert (claims.book.asked, claims.book.unanswered) == (False, 0)


@pytest.mark.slow
@pytest.mark.parametrize("honours", [True, False])
def test_a_poller_killed_between_question_and_answer(machine, proxy, tmp_path, honours):
    """The proxy kills the poller when the server has assigned the task."""
    first, second = machine.queue(2)
    proxy.hides = set() if honours else {"idempotency-key"}
    behind = machine.at(proxy.url)
    pollers = []

    def choose(method, path):
        if path.endswith("training-task") and len(pollers) == 1:
            pollers.append(None)
            pollers[0].send_signal(signal.SIGKILL)
            return LoseAnswer()
        return None

    proxy.choose = choose
    runner = [
        sys.executable,
        "-c",
        "import pidml.poller.loop as l, pidml.settings as s; l.poll(s.Settings.load(dotenv=None), drain=True)",
    ]
    pollers.append(subprocess.Popen(runner, env=behind.environment()))
    assert pollers[0].wait(30) == -signal.SIGKILL
    assert read_book(machine.settings.store).asked
    counts = poll(behind.settings, drain=True, command=fake_command)
    assert counts.completed == (2 if honours else 1)
    assert read_book(machine.settings.store).possibly_lost == (0 if honours else 1)
    assert machine.statuses(first)[-1] == ("COMPLETED" if honours else "TRAINING")
    assert machine.statuses(second)[-1] == "COMPLETED"


def test_a_poller_that_died_after_the_task_was_stored_lost_nothing(machine):
    store = machine.settings.store
    claims = Claims(store)
    machine.queue()
    with machine.client() as client:
        given = client.claim(claims.book.key)
    claims._save(replace(claims.book, asked=True))
    store_claim(store, given.task_id, given.raw, claims.book.key)
    again = Claims(store)
    assert (again.book.asked, again.book.unanswered, again.book.possibly_lost) == (False, 0, 0)
    assert again.book.key != claims.book.key


def test_a_book_of_an_earlier_version_and_a_damaged_one(machine):
    path = jobs_dir(machine.settings.store) / "next-claim.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"key": "kept"}')
    assert Claims(machine.settings.store).book.key == "kept"
    path.write_text('{"asked": true}')
    with pytest.raises(StoreError, match=r"next-claim\.json is damaged"):
        Claims(machine.settings.store)
    assert "damaged" in status(machine.settings).warnings[0]


def test_an_unanswered_question_is_followed_by_one_that_costs_nothing(machine, proxy):
    claims = Claims(machine.settings.store)
    proxy.faults = [Drop()]
    with pytest.raises(AnswerLost):
        claim(machine.at(proxy.url), claims)
    claim(machine.at(proxy.url), claims)
    assert [path for _, path, _ in proxy.seen][1] == "/"
