"""Uploads and statuses: once, in order, now or later, never ignored."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support.fault_proxy import Answer, Drop, LoseAnswer, fault_proxy
from support.machine import running_machine

from pidml.alicetraint.jobs import store_claim
from pidml.alicetraint.outbox import flush, report_status, upload_files, waiting, withdraw_status
from pidml.alicetraint.receipts import Upload, receipts, refusals, reported_status
from pidml.errors import ConfigError, KeyRefused, ServerRefused, StoreError
from pidml.server.protocol import FileType, TaskStatus


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_machine(tmp_path_factory.mktemp("machine")) as machine, fault_proxy(machine.server.url) as proxy:
        yield machine.at(proxy.url), proxy


@pytest.fixture
def machine(running):
    return running[0]


@pytest.fixture
def proxy(running):
    proxy = running[1]
    proxy.faults, proxy.choose = [], lambda method, path: None
    proxy.seen.clear()
    return proxy


@pytest.fixture
def job(machine, proxy):
    [task] = machine.queue()
    with machine.client() as client:
        claim = client.claim(f"claim {task}")
    proxy.seen.clear()
    return store_claim(machine.settings.store, claim.task_id, claim.raw, "key")


@pytest.fixture
def client(machine):
    with machine.client() as client:
        yield client


@pytest.fixture
def files(tmp_path):
    made = []
    for name, kind in (("a.log", FileType.LOG), ("b.png", FileType.IMAGE), ("pion.onnx", FileType.ONNX)):
        (tmp_path / name).write_text(f"content of {name}")
        made.append(Upload(tmp_path / name, name, kind, f"about {name}"))
    return made


def contents(files):
    return [(file.name, file.path.read_text()) for file in files]


def test_each_file_is_sent_once_however_often_it_is_handed_over(machine, proxy, job, client, files):
    first = upload_files(job.path, client, files)
    assert upload_files(job.path, client, [*files, files[0]]) == [*first, first[0]]
    assert machine.results(job.task_id) == contents(files)
    assert len(proxy.seen) == 3
    assert all(receipt.sent and receipt.answer["SHA256"] == receipt.sha256 for receipt in first)
    assert receipts(job) == first
    assert [each.type for each in machine.server.store.results(job.task_id)] == [0, 1, 2]


def test_a_file_that_changed_is_sent_again(machine, job, client, files):
    upload_files(job.path, client, files[:1])
    files[0].path.write_text("run again")
    upload_files(job.path, client, files[:1])
    assert machine.results(job.task_id) == [("a.log", "content of a.log"), ("a.log", "run again")]


def test_what_cannot_be_sent_now_waits_and_goes_out_later_in_order(machine, proxy, job, client, files):
    proxy.choose = lambda method, path: Drop()
    assert [receipt.sent for receipt in upload_files(job.path, client, files[:2])] == [False, False]
    assert report_status(job.path, client, TaskStatus.BENCHMARKING) is False
    for file in files:
        if file.name != "pion.onnx":
            file.path.unlink()  # the outbox has its own copy
    assert waiting(job) == 3
    assert machine.results(job.task_id) == []
    proxy.choose = lambda method, path: None
    upload_files(job.path, client, files[2:])
    assert report_status(job.path, client, TaskStatus.COMPLETED)
    assert waiting(job) == 0
    assert [name for name, _ in machine.results(job.task_id)] == ["a.log", "b.png", "pion.onnx"]
    assert machine.statuses(job.task_id) == ["QUEUED", "TRAINING", "BENCHMARKING", "COMPLETED"]
    sent = [path.rpartition("/")[2] for _, path, _ in proxy.seen if "Drop" not in path][-5:]
    assert sent == ["training-task-results"] * 2 + ["status", "training-task-results", "status"]


def test_status_is_told_once_and_never_backwards(machine, proxy, job, client):
    for status in (TaskStatus.TRAINING, TaskStatus.TRAINING, TaskStatus.COMPLETED, TaskStatus.BENCHMARKING):
        assert report_status(job.path, client, status)
    assert report_status(job.path, client, TaskStatus.FAILED), "both are ends; the first one stands"
    assert machine.statuses(job.task_id) == ["QUEUED", "TRAINING", "COMPLETED"]
    assert len(proxy.seen) == 2
    assert reported_status(job) is TaskStatus.COMPLETED


def test_a_status_that_is_back_after_a_power_cut_is_not_sent_again(machine, proxy, job, client):
    proxy.choose = lambda method, path: Drop()
    report_status(job.path, client, TaskStatus.BENCHMARKING)
    [entry] = (job.path / "pending").glob("*.json")
    saved = entry.read_bytes()
    proxy.choose = lambda method, path: None
    report_status(job.path, client, TaskStatus.COMPLETED)
    entry.write_bytes(saved)
    assert flush(job.path, client).error is None
    assert machine.statuses(job.task_id) == ["QUEUED", "TRAINING", "BENCHMARKING", "COMPLETED"]


def test_an_upload_that_the_server_refuses_fails_visibly_and_completed_is_impossible(
    machine, proxy, job, client, files
):
    proxy.faults = [Answer(422, body=b"no such file type")]
    with pytest.raises(ServerRefused, match="no such file type"):
        upload_files(job.path, client, files)
    assert [name for name, _ in machine.results(job.task_id)] == ["b.png", "pion.onnx"], "the others are sent"
    assert [item["name"] for item in refusals(job)] == ["a.log"]
    with pytest.raises(ServerRefused, match=r"a\.log"):
        report_status(job.path, client, TaskStatus.COMPLETED)
    with pytest.raises(ServerRefused, match=r"a\.log"):
        upload_files(job.path, client, files)
    assert report_status(job.path, client, TaskStatus.FAILED)
    assert machine.statuses(job.task_id)[-1] == "FAILED"


def test_completed_is_withheld_if_an_earlier_upload_is_refused_when_the_server_is_back(
    machine, proxy, job, client, files
):
    proxy.choose = lambda method, path: Drop()
    upload_files(job.path, client, files[:1])
    report_status(job.path, client, TaskStatus.COMPLETED)
    proxy.choose = lambda method, path: Answer(413) if "results" in path else None
    outcome = flush(job.path, client)
    assert outcome.withheld
    assert [item["name"] for item in outcome.refused] == ["a.log"]
    assert machine.statuses(job.task_id) == ["QUEUED", "TRAINING"]
    withdraw_status(job.path)
    assert report_status(job.path, client, TaskStatus.FAILED)


def test_a_refused_key_keeps_everything_for_the_day_when_it_is_accepted(machine, proxy, job, client, files):
    proxy.choose = lambda method, path: Answer(401)
    upload_files(job.path, client, files)
    assert isinstance(flush(job.path, client).error, KeyRefused)
    assert (waiting(job), refusals(job)) == (3, [])
    assert len(proxy.seen) == 2, "one question, not one per file"
    proxy.choose = lambda method, path: None
    assert flush(job.path, client).sent == 3
    assert machine.results(job.task_id) == contents(files)


def test_lost_answers_are_counted_and_stored_once_by_a_server_that_honours_the_key(machine, proxy, job, client, files):
    proxy.faults = [LoseAnswer()]
    [receipt] = upload_files(job.path, client, files[:1])
    assert not receipt.sent
    proxy.faults = [LoseAnswer()]
    flush(job.path, client)
    flush(job.path, client)
    [receipt] = upload_files(job.path, client, files[:1])
    assert (receipt.sent, receipt.possible_duplicates) == (True, 2)
    assert machine.results(job.task_id) == contents(files[:1])


def test_nothing_that_holds_the_key_leaves_the_machine(machine, job, client, tmp_path):
    secret = machine.settings.secret.reveal()
    log = tmp_path / "step.log"
    log.write_text(f"Secret-Id: {secret}\n")
    upload_files(job.path, client, [Upload(log, "step.log", FileType.LOG, f"made with {secret}")])
    assert machine.results(job.task_id) == [("step.log", "Secret-Id: ****\n")]
    assert machine.server.store.results(job.task_id)[0].description == "made with ****"


def test_what_cannot_be_sent_at_all_says_so(job, client, files, tmp_path, monkeypatch):
    with pytest.raises(StoreError, match="cannot read"):
        upload_files(job.path, client, [Upload(tmp_path / "absent.log", "absent.log", FileType.LOG)])
    with pytest.raises(StoreError, match="no name for an upload"):
        upload_files(job.path, client, [Upload(files[0].path, "../a.log", FileType.LOG)])
    monkeypatch.setattr("pidml.alicetraint.outbox.MAX_UPLOAD_BYTES", 3)
    with pytest.raises(StoreError, match="more than 3"):
        upload_files(job.path, client, files)
    assert waiting(job) == 0


def test_a_job_is_reported_to_the_server_it_came_from_only(machine, job, files):
    with machine.at("http://127.0.0.1:1").client() as client, pytest.raises(ConfigError, match="PIDML_STORE"):
        upload_files(job.path, client, files)


def test_left_over_pieces_of_a_killed_process_do_no_harm(machine, job, client, files):
    pending = job.path / "pending"
    pending.mkdir()
    (pending / ".00000001.tmp-abc.json").write_text('{"kind"')
    (pending / "00000001.bin").write_text("content whose entry was never written")
    upload_files(job.path, client, files)
    assert machine.results(job.task_id) == contents(files)
    assert list(pending.iterdir()) == []


SENDER = """
import sys
from pathlib import Path
from pidml.alicetraint.client import AliceTraINTClient
from pidml.alicetraint.outbox import report_status, upload_files
from pidml.alicetraint.receipts import Upload
from pidml.server.protocol import FileType, TaskStatus
from pidml.settings import Settings
job, *paths = map(Path, sys.argv[1:])
with AliceTraINTClient.of_settings(Settings.load(dotenv=None)) as client:
    upload_files(job, client, [Upload(path, path.name, FileType.LOG) for path in paths])
    report_status(job, client, TaskStatus.BENCHMARKING)
"""


def test_processes_that_send_the_same_files_at_once_send_them_once(machine, proxy, job, files):
    command = [sys.executable, "-c", SENDER, str(job.path), *(str(file.path) for file in files)]
    processes = [subprocess.Popen(command, env={**os.environ, **machine.settings.environment()}) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    assert machine.results(job.task_id) == contents(files)
    assert len(proxy.seen) == 4


def test_a_sender_killed_while_the_server_stores_the_file_leaves_it_to_the_next(machine, proxy, job, client, files):
    command = [sys.executable, "-c", SENDER, str(job.path), *(str(file.path) for file in files)]
    victims = []

    def kill(method, path):
        victims[0].send_signal(signal.SIGKILL)

    proxy.choose = kill
    victims.append(subprocess.Popen(command, env={**os.environ, **machine.settings.environment()}))
    assert victims[0].wait() == -signal.SIGKILL
    proxy.choose = lambda method, path: None
    assert flush(job.path, client).waiting == 0
    assert machine.results(job.task_id) == contents(files)
    assert len(proxy.seen) == 4, "the first file was sent twice and stored once"
    receipts = [json.loads(path.read_text()) for path in (job.path / "receipts").glob("[0-9a-f]*.json")]
    assert sum(receipt["possible_duplicates"] for receipt in receipts) == 1


def test_receipts_are_readable_by_people(job, client, files):
    [receipt] = upload_files(job.path, client, files[:1])
    on_disk = json.loads((job.path / "receipts" / f"{receipt.key}.json").read_text())
    assert {"task", "name", "sha256", "answer", "time"} <= set(on_disk)
