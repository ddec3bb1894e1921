"""The poller with the real server and a stand-in for law: jobs one after another, and what an earlier life left."""

import sys

import pytest
from support.fake_job import expected_results
from support.fault_proxy import Drop, fault_proxy
from support.machine import fake_command
from support.poller import run

from pidml.alicetraint.jobs import JobDirectory, job_directory, jobs_dir, store_claim
from pidml.errors import DiskFull, ServerError
from pidml.poller.loop import Poller, poll
from pidml.poller.status import status
from pidml.server.protocol import TaskStatus


def test_jobs_run_one_after_another_until_none_is_queued(machine):
    tasks = machine.queue(3)
    counts = run(machine)
    assert (counts.claimed, counts.completed, counts.failed, counts.unsent) == (3, 3, 0, 0)
    for task in tasks:
        assert machine.statuses(task) == ["QUEUED", "TRAINING", "BENCHMARKING", "COMPLETED"]
        assert sorted(machine.results(task)) == sorted(expected_results(task))
        assert job_directory(machine.settings.store, task).state().phase == "reported"
    assert run(machine).claimed == 0


def test_once_claims_one_task(machine):
    first, second = machine.queue(2)
    assert run(machine, drain=False, once=True).claimed == 1
    assert (machine.status(first), machine.status(second)) == (TaskStatus.COMPLETED, TaskStatus.QUEUED)


def test_completed_is_reported_also_for_a_job_that_does_not(machine):
    [task] = machine.queue()
    poll(machine.settings, once=True, command=lambda _: [sys.executable, "-c", "pass"])
    assert machine.statuses(task) == ["QUEUED", "TRAINING", "COMPLETED"]


def test_once_says_if_the_server_cannot_be_asked(machine):
    with pytest.raises(ServerError, match="cannot be reached"):
        run(machine.at("http://127.0.0.1:9"))


@pytest.mark.slow
def test_a_server_away_while_a_job_runs_does_not_stop_the_job(machine, plan):
    [task] = machine.queue()
    with fault_proxy(machine.server.url) as proxy:
        proxy.choose = lambda method, path: Drop() if method == "POST" else None
        counts = run(machine.at(proxy.url))
        assert (counts.completed, counts.unsent) == (0, 1)
        assert job_directory(machine.settings.store, task).state().outcome == "completed"
        assert machine.results(task) == []
        ran = (machine.settings.store / "computed.log").read_text()
        proxy.choose = lambda method, path: None
        counts = run(machine.at(proxy.url))
    assert (counts.completed, counts.unsent) == (1, 0)
    assert sorted(machine.results(task)) == sorted(expected_results(task))
    assert machine.statuses(task) == ["QUEUED", "TRAINING", "BENCHMARKING", "COMPLETED"]
    assert (machine.settings.store / "computed.log").read_text() == ran


@pytest.mark.slow
def test_a_claim_from_an_earlier_life_is_finished_first_and_exactly_once(machine):
    first, second = machine.queue(2)
    with machine.client() as client:
        claim = client.claim("earlier life")
    store_claim(machine.settings.store, claim.task_id, claim.raw, "earlier life")
    jobs = jobs_dir(machine.settings.store)
    (jobs / "next-claim.json").write_text('{"key": "earlier life"}')
    counts = run(machine)
    assert counts.completed == 2
    for task in (first, second):
        assert sorted(machine.results(task)) == sorted(expected_results(task))


def test_a_damaged_job_does_not_stop_the_others(machine):
    first, second = machine.queue(2)
    with machine.client() as client:
        claim = client.claim("x")
    job = store_claim(machine.settings.store, claim.task_id, claim.raw, "x")
    (job.path / "state.json").write_text("{")
    assert run(machine).completed == 1
    assert machine.status(second) is TaskStatus.COMPLETED
    assert "damaged" in str(status(machine.settings).jobs)
    assert first == job.task_id


def test_a_job_whose_end_cannot_be_written_down_is_run_again_without_a_restart(machine, monkeypatch):
    [task] = machine.queue()
    refused = []

    def save(self, state, really=JobDirectory.save):
        if state.phase == "finished" and not refused:
            refused.append(state)
            raise DiskFull("the disk is full", "")
        return really(self, state)

    monkeypatch.setattr(JobDirectory, "save", save)
    monkeypatch.setattr("pidml.poller.loop.Poller._claim", _claim_then_stop)
    poll(machine.settings, command=fake_command)
    assert len(refused) == 1
    assert machine.status(task) is TaskStatus.COMPLETED
    assert sorted(machine.results(task)) == sorted(expected_results(task))


def _claim_then_stop(self, patient, really=Poller._claim):
    found = really(self, patient=False)
    self.signals.stops += not found
    return found
