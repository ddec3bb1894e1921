"""Claimed jobs on the disk: durable, found again, and never mixed up."""

import json

import pytest

from pidml.alicetraint.jobs import (
    all_jobs,
    bind_server,
    claimed_job,
    claimed_job_path,
    job_directory,
    jobs_dir,
    read_claim,
    stop_requested,
    store_claim,
    write_progress,
)
from pidml.errors import ConfigError, SpecError, StoreError, UnknownJob
from pidml.secret import Secret
from pidml.settings import ServerAddress

RAW = b'{"ID": 17,  "AODFiles": [], "Configuration": {}}\n'


def test_a_claim_is_kept_byte_for_byte(tmp_path):
    job = store_claim(tmp_path, 17, RAW, "key")
    assert claimed_job_path(tmp_path, 17).read_bytes() == RAW
    assert read_claim(tmp_path, 17)["ID"] == 17
    assert (job.state().phase, job.state().claim_key) == ("claimed", "key")
    assert [found.task_id for found in all_jobs(tmp_path)] == [17]


def test_a_job_that_is_not_here_is_named_with_those_that_are(tmp_path):
    store_claim(tmp_path, 3, RAW, "key")
    store_claim(tmp_path, 17, RAW, "key")
    with pytest.raises(UnknownJob, match="task 4") as caught:
        claimed_job(tmp_path, 4)
    assert "3, 17" in str(caught.value)


def test_an_unfinished_claim_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr("pidml.alicetraint.jobs.write_json", _power_cut)
    with pytest.raises(KeyboardInterrupt):
        store_claim(tmp_path, 17, RAW, "key")
    assert all_jobs(tmp_path) == []
    monkeypatch.undo()
    assert store_claim(tmp_path, 17, RAW, "key").exists()


def _power_cut(*_):
    raise KeyboardInterrupt


def test_the_same_answer_again_changes_nothing(tmp_path):
    job = store_claim(tmp_path, 17, RAW, "key")
    job.save(job.state().but(phase="reported", outcome="completed"))
    assert store_claim(tmp_path, 17, RAW, "key").state().phase == "reported", "a repeated claim"
    job.save(job.state().but(phase="running"))
    assert store_claim(tmp_path, 17, RAW, "another").state().phase == "running", "an answer that came late"


def test_a_task_queued_anew_is_run_again_and_keeps_its_receipts(tmp_path):
    job = store_claim(tmp_path, 17, RAW, "key")
    (job.path / "receipts").mkdir()
    (job.path / "receipts" / "status-4.json").write_text("{}")
    (job.path / "receipts" / ("a" * 64 + ".json")).write_text("{}")
    job.save(job.state().but(phase="reported", outcome="failed", attempts=3, runs=2))
    state = store_claim(tmp_path, 17, RAW, "another").state()
    assert (state.phase, state.outcome, state.attempts, state.runs) == ("claimed", None, 0, 2)
    assert [path.name for path in (job.path / "receipts").iterdir()] == ["a" * 64 + ".json"]


def test_another_task_with_the_same_number_sets_the_old_one_aside(tmp_path):
    job = store_claim(tmp_path, 17, RAW, "key")
    (job.path / "receipts").mkdir()
    store_claim(tmp_path, 17, b'{"ID": 17, "other": 1}', "another")
    assert read_claim(tmp_path, 17) == {"ID": 17, "other": 1}
    assert not (job.path / "receipts").exists()
    [old] = (jobs_dir(tmp_path) / "superseded").iterdir()
    assert (old / "task.json").read_bytes() == RAW
    assert [found.task_id for found in all_jobs(tmp_path)] == [17]


@pytest.mark.parametrize(
    "raw", [b"{" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"[1]", b"nonsense", b"\xff", b""]
)
def test_a_task_that_cannot_be_read_is_a_named_error(tmp_path, raw):
    store_claim(tmp_path, 17, raw, "key")
    with pytest.raises(SpecError, match="the server's task"):
        read_claim(tmp_path, 17)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phase": "dancing"}'])
def test_a_damaged_state_is_a_named_error(tmp_path, text):
    job = store_claim(tmp_path, 17, RAW, "key")
    (job.path / "state.json").write_text(text)
    with pytest.raises(StoreError, match=r"state\.json"):
        job.state()


def test_a_state_of_a_later_version_is_read(tmp_path):
    job = store_claim(tmp_path, 17, RAW, "key")
    state = json.loads((job.path / "state.json").read_text())
    (job.path / "state.json").write_text(json.dumps({**state, "mood": "good"}))
    assert job.state().phase == "claimed"


def test_a_store_belongs_to_one_machine_on_one_server(tmp_path):
    here = ServerAddress("http://a", 1, Secret("key"))
    bind_server(tmp_path, here)
    bind_server(tmp_path, ServerAddress("http://a", 1, Secret("a renewed key")))
    assert "key" not in (jobs_dir(tmp_path) / "server.json").read_text()
    for other in (ServerAddress("http://b", 1, Secret("key")), ServerAddress("http://a", 2, Secret("key"))):
        with pytest.raises(ConfigError, match="machine 1 on http://a"):
            bind_server(tmp_path, other)


def test_progress_and_stop_requests_pass_through_the_directory(tmp_path):
    job = store_claim(tmp_path, 17, RAW, "key")
    before = job.progress_mark()
    write_progress(job.path, "Train", 3, 40, "epoch 3")
    assert job.progress_mark() != before
    assert not stop_requested(job.path)
    job.stop_file.touch()
    assert stop_requested(job.path)
    assert job_directory(tmp_path, 17) == job
