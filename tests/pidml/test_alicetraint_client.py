"""The protocol over real HTTP: the embedded server, and a proxy before it that fails in every way a network can."""

import hashlib
import socket
import threading
import time
import uuid

import pytest
from support.fault_proxy import Answer, Drop, Hang, LoseAnswer, Truncate, Twice, fault_proxy
from support.machine import running_machine

from pidml.alicetraint.client import AliceTraINTClient, check_name, idempotency_key, task_id_of
from pidml.alicetraint.transport import Retry, Timeouts
from pidml.errors import AnswerLost, KeyRefused, ServerError, ServerRefused, StoreError
from pidml.secret import Secret
from pidml.server.protocol import FileType, TaskStatus
from pidml.settings import ServerAddress

HTML = b"<!DOCTYPE html><title>Proxy</title>"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with running_machine(tmp_path_factory.mktemp("machine")) as running:
        yield running


@pytest.fixture
def proxy(machine):
    with fault_proxy(machine.server.url) as running:
        yield running


@pytest.fixture(autouse=True)
def _empty_queue(machine):
    """Leave no queued task to the next test."""
    yield
    with machine.client() as client:
        while client.claim(uuid.uuid4().hex) is not None:
            pass


def test_a_task_is_claimed_as_it_was_sent_and_then_none_is_left(machine):
    [task] = machine.queue(configuration={"bs": 64, "unheard of": [1, {"a": None}]})
    with machine.client() as client:
        claim = client.claim("first")
        assert claim.task_id == task
        assert b'"unheard of":[1,{"a":null}]' in claim.raw
        assert client.claim("second") is None
        client.set_status(task, TaskStatus.BENCHMARKING)
        client.upload_result(task, "a.log", b"text", "a log", FileType.LOG, idempotency_key(task, "a.log", b"text"))
    assert machine.statuses(task) == ["QUEUED", "TRAINING", "BENCHMARKING"]
    assert machine.results(task) == [("a.log", "text")]


def test_the_same_claim_key_brings_the_same_task_again_from_a_server_that_honours_it(machine):
    first, second = machine.queue(2)
    with machine.client() as client:
        assert client.claim("k1").task_id == first
        assert client.repeats_claims
        assert client.claim("k1").task_id == first
        assert client.claim("k2").task_id == second


@pytest.mark.parametrize(
    "fault", [LoseAnswer(), LoseAnswer(reset=True), Truncate(5), Answer(502), Answer(500), Answer(504)]
)
def test_a_claim_whose_answer_is_lost_is_not_asked_again_blindly(machine, proxy, fault):
    machine.queue(2)
    proxy.faults = [fault]
    with machine.at(proxy.url).client(attempts=5) as client, pytest.raises(AnswerLost):
        client.claim("lost")
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("fault", [Answer(503), Answer(429), Answer(408), Answer(425), Answer(503, body=HTML)])
def test_a_claim_that_was_turned_away_is_asked_again(machine, proxy, fault):
    [task] = machine.queue()
    proxy.faults = [fault, fault]
    with machine.at(proxy.url).client(attempts=3) as client:
        assert client.claim(uuid.uuid4().hex).task_id == task
    assert len(proxy.seen) == 3


def test_nobody_listens(machine):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tries = []
    client = AliceTraINTClient(
        ServerAddress(f"http://127.0.0.1:{port}", 1, Secret("key")),
        retry=Retry(attempts=4, first=0.5, longest=8.0),
        wait=lambda seconds: tries.append(seconds) or False,
    )
    with client, pytest.raises(ServerError, match=r"127\.0\.0\.1.*refused") as caught:
        client.claim("k")
    assert not isinstance(caught.value, AnswerLost)
    assert len(tries) == 3
    assert 0.25 <= tries[0] <= 0.5 <= tries[1] <= 1.0 <= tries[2] <= 2.0, "backoff doubles, with jitter"


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0, 0.5),
        ({"Retry-After": "x"}, 0.2, 0.5),
    ],
)
def test_retry_after_is_heeded(machine, proxy, headers, low, high):
    proxy.faults = [Answer(429, headers)]
    waits = []
    client = AliceTraINTClient(
        machine.at(proxy.url).settings.server_address(),
        retry=Retry(attempts=2, first=0.5),
        wait=lambda seconds: waits.append(seconds) or False,
    )
    with client:
        client.claim("k")
    assert low <= waits[0] <= high


def test_a_server_that_asks_for_more_patience_than_a_call_has_is_left_in_peace(machine, proxy):
    proxy.faults = [Answer(503, {"Retry-After": "1800"})]
    with machine.at(proxy.url).client(attempts=5) as client, pytest.raises(ServerError) as caught:
        client.claim("k")
    assert caught.value.retry_after == 1800
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_refused_key_is_an_error_of_its_own_and_not_tried_again(machine, proxy, status):
    proxy.faults = [Answer(status)]
    with machine.at(proxy.url).client(attempts=5) as client, pytest.raises(KeyRefused, match="MACHINE_SECRET_KEY"):
        client.set_status(1, TaskStatus.TRAINING)
    assert len(proxy.seen) == 1


def test_the_server_itself_refuses_a_wrong_key_a_wrong_task_and_a_wrong_status(machine):
    [task] = machine.queue()
    wrong = ServerAddress(machine.server.url, machine.settings.machine_id, Secret("wrong"))
    with AliceTraINTClient(wrong) as client, pytest.raises(KeyRefused):
        client.claim("k")
    with machine.client() as client:
        with pytest.raises(KeyRefused):
            client.set_status(999_999, TaskStatus.TRAINING)
        assert client.claim("right").task_id == task
        with pytest.raises(ServerRefused, match="Status"):
            client.set_status(task, TaskStatus.UPLOADED)


@pytest.mark.parametrize(
    "fault", [LoseAnswer(), LoseAnswer(reset=True), Truncate(3), Answer(500), Drop(), Drop(reset=True)]
)
def test_an_upload_whose_answer_is_lost_is_sent_again_and_stored_once(machine, proxy, fault):
    [task] = machine.queue()
    lost = []
    with machine.at(proxy.url).client(attempts=4) as client:
        client.claim(f"claim {task}")
        proxy.faults = [fault, fault]
        key = idempotency_key(task, "a.log", b"text")
        answer = client.upload_result(task, "a.log", b"text", "", FileType.LOG, key, lambda: lost.append(1))
    assert answer["Name"] == "a.log"
    assert machine.results(task) == [("a.log", "text")]
    assert len(lost) == 2


def test_a_duplicated_request_changes_nothing(machine, proxy):
    first, second = machine.queue(2)
    with machine.at(proxy.url).client() as client:
        proxy.faults = [Twice(), Twice(), Twice()]
        assert client.claim("twice").task_id == first
        client.upload_result(first, "a.log", b"text", "", FileType.LOG, idempotency_key(first, "a.log", b"text"))
        client.set_status(first, TaskStatus.COMPLETED)
        assert client.claim("next").task_id == second
    assert machine.results(first) == [("a.log", "text")]
    assert machine.statuses(first) == ["QUEUED", "TRAINING", "COMPLETED"]


def test_a_server_that_hangs_is_given_up_after_the_read_timeout(machine, proxy):
    proxy.faults = [Hang()]
    begin = time.monotonic()
    with machine.at(proxy.url).client(attempts=1, read=0.3) as client, pytest.raises(AnswerLost, match="timed out"):
        client.claim("k")
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("location", ["http://evil.example/steal", "https://127.0.0.1/", "/elsewhere"])
def test_a_redirect_is_an_error_and_the_key_is_sent_nowhere_else(machine, proxy, location):
    proxy.faults = [Answer(307, {"Location": location})] * 3
    with machine.at(proxy.url).client(attempts=1) as client:
        for call in (lambda: client.claim("k"), lambda: client.set_status(1, TaskStatus.TRAINING)):
            with pytest.raises(ServerError, match="redirects"):
                call()
    assert len(proxy.seen) == 2


def test_a_redirect_to_another_port_is_not_followed_with_the_key(machine, proxy):
    with fault_proxy(machine.server.url) as other:
        proxy.faults = [Answer(302, {"Location": other.url})]
        with machine.at(proxy.url).client() as client, pytest.raises(ServerError, match="redirects"):
            client.claim("k")
        assert other.seen == []


@pytest.mark.parametrize("status", [200, 201])
def test_a_web_page_is_no_answer(machine, proxy, status):
    proxy.faults = [Answer(status, {"Content-Type": "text/html"}, HTML)] * 2
    with machine.at(proxy.url).client() as client:
        with pytest.raises(AnswerLost, match="web page"):
            client.claim("k")
        with pytest.raises(AnswerLost, match="web page"):
            client.set_status(1, TaskStatus.TRAINING)


def test_a_404_that_is_a_web_page_does_not_pass_for_an_empty_queue(machine, proxy):
    proxy.faults = [Answer(404, {"Content-Type": "text/html"}, HTML)]
    with machine.at(proxy.url).client() as client, pytest.raises(ServerRefused, match="web page"):
        client.claim("k")


def test_a_compressed_answer_is_refused_unopened(machine, proxy):
    proxy.faults = [Answer(200, {"Content-Encoding": "gzip"}, b"\x1f\x8b" + b"0" * 100)]
    with machine.at(proxy.url).client() as client, pytest.raises(AnswerLost, match="compressed"):
        client.claim("k")


def test_an_answer_without_end_is_cut_at_the_limit(machine, proxy, monkeypatch):
    monkeypatch.setattr("pidml.alicetraint.client.MAX_TASK_BYTES", 100_000)
    proxy.faults = [Answer(200, {}, b'{"ID": 1, "x": "' + b"a" * 200_000 + b'"}')]
    with machine.at(proxy.url).client() as client, pytest.raises(AnswerLost, match="larger than 100000"):
        client.claim("k")


def test_an_answer_that_drips_is_given_up_although_every_read_succeeds():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def drip():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not ended.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        address = ServerAddress(f"http://127.0.0.1:{listening.getsockname()[1]}", 1, Secret("key"))
        with (
            AliceTraINTClient(address, Timeouts(1.0, 5.0, 0.4)) as client,
            pytest.raises(AnswerLost, match=r"longer than 0\.4"),
        ):
            client.claim("k")
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b'{"ID": 17}', 17),
        (b'{"a": [], "ID": 3}', 3),
        (b' { "ID" : 12 , "Configuration": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", 12),
        (b'{"ID": 5, "AODFiles": [', 5),
        (b'{"ID": 6, "x": NaN, "y": \xff}', 6),
    ],
)
def test_the_number_of_a_task_is_found_even_in_a_task_that_cannot_be_read(raw, number):
    assert task_id_of(raw) == number


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b'{"ID": "17"}',
        b'{"ID": true}',
        b'{"ID": -1}',
        b'{"ID": 1e3}',
        b'{"ID": 99999999999999999999}',
        b"[" * 10_000,
    ],
)
def test_an_answer_without_a_number_is_a_lost_task(raw):
    with pytest.raises(AnswerLost, match="without a number"):
        task_id_of(raw)


@pytest.mark.parametrize(
    "name", ["", ".hidden", "-x", "a/b.log", "../a", "a\nb", "a b", "x" * 151, "ä.log", "a;rm", 'a"b']
)
def test_names_that_could_be_misread_are_refused(name):
    with pytest.raises(StoreError):
        check_name(name)


def test_the_idempotency_key_is_a_digest_of_task_name_and_content():
    key = idempotency_key(1, "a.log", b"text")
    assert key == hashlib.sha256(b"1\na.log\n" + hashlib.sha256(b"text").digest()).hexdigest()
    assert (
        len(
            {
                key,
                idempotency_key(2, "a.log", b"text"),
                idempotency_key(1, "b.log", b"text"),
                idempotency_key(1, "a.log", b""),
            }
        )
        == 4
    )


def test_the_key_travels_in_its_header_only(machine, proxy):
    with machine.at(proxy.url).client() as client:
        client.claim("k")
        client.probe()
    secret = machine.settings.secret.reveal()
    claim, probe = proxy.seen
    assert claim[2]["Secret-Id"] == secret
    assert secret not in str(probe)
    assert secret not in claim[1]
    assert [value for value in claim[2].values() if secret in value] == [secret]


def test_a_password_for_the_host_in_netrc_is_not_sent(machine, proxy, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secretword\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with machine.at(proxy.url).client() as client:
        client.claim("k")
    assert "Authorization" not in proxy.seen[0][2]
