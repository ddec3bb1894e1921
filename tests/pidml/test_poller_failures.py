"""Jobs that fail: the reason reaches the server, what may pass is tried again, the poller lives on."""

import pytest
from support.fake_job import expected_results
from support.fault_proxy import Answer, fault_proxy
from support.machine import fake_command
from support.poller import failure_text, run
from support.waiting import eventually

from pidml.alicetraint.jobs import job_directory
from pidml.poller.loop import poll
from pidml.server.protocol import TaskStatus

NONSENSE = [
    ({"configuration": {"bs": -3}}, "bs = -3"),
    ({"configuration": {"unheard_of": 1}}, "unheard_of"),
    ({"configuration": {"undersample": "no"}}, "undersample"),
    ({"configuration": {"bs": 10**400}}, "bs = 1000"),
    ({"configuration": {"d_model": 30, "num_heads": 4}}, "num_heads"),
    ({"path": "/etc/passwd"}, "/etc/passwd"),
    ({"path": "/alice/sim/2026/../../../etc/passwd.root"}, "malformed"),
    ({"path": "/alice/sim/2026/a\nb.root"}, "malformed"),
    ({"path": "/alice/sim/2026/LHC26a/0/1/$(reboot).root"}, "outside the folders"),
    ({"path": "a" * 10_000_000}, "AODFiles"),
    ({"Size": -1}, "Size"),
    ({"configuration": {"data": "x" * 10_000}}, "P100"),
]


def test_tasks_that_make_no_sense_fail_with_the_reason_and_the_poller_lives_on(machine):
    bad = [(machine.queue(**task)[0], said) for task, said in NONSENSE]
    [good] = machine.queue()
    counts = run(machine)
    assert (counts.completed, counts.failed) == (1, len(NONSENSE))
    for task, said in bad:
        assert machine.statuses(task) == ["QUEUED", "TRAINING", "FAILED"]
        text = failure_text(machine, task)
        assert said in text
        assert "→" in text
        assert len(text) < 10_000
    assert machine.status(good) is TaskStatus.COMPLETED


def test_a_task_about_experimental_data_fails_before_it_is_started(machine):
    path = "/alice/data/2026/LHC26a/1/apass1/AOD/001/AO2D.root"
    task = machine.server.store.queue_task("data", [{"Path": path}], {}, is_data=True)
    counts = run(machine)
    assert (counts.claimed, counts.failed) == (1, 1)
    assert "P605" in failure_text(machine, task)
    assert not job_directory(machine.settings.store, task).log_file.exists()


def test_json_nested_ten_thousand_deep_fails_that_task_only(machine):
    [task] = machine.queue()
    body = b'{"ID":%d,"Configuration":' % task + b'{"a":' * 10_000 + b"1" + b"}" * 10_001
    with fault_proxy(machine.server.url) as proxy:
        with machine.client() as client:
            client.claim("assign it")
        proxy.faults = [Answer(200, {"Content-Type": "application/json"}, body)]
        counts = run(machine.at(proxy.url))
    assert (counts.claimed, counts.failed) == (1, 1)
    assert "nested too deep" in failure_text(machine, task)
    assert job_directory(machine.settings.store, task).task_file.read_bytes() == body


def test_a_failing_step_s_reason_log_and_results_reach_the_server(machine, plan):
    shared = machine.settings.store / "Train" / "abc.log"
    shared.parent.mkdir(parents=True)
    shared.write_text("epoch 1\nloss nan\n")
    told = {
        "code": "P602",
        "what": "the loss became NaN",
        "hint": "lower start_lr",
        "step": "Train",
        "log": str(shared),
    }
    plan(exit=40, failure=told, print="Traceback of the step")
    [task] = machine.queue()
    counts = run(machine)
    assert (counts.failed, counts.retries) == (1, 0)
    text = failure_text(machine, task)
    assert text.startswith(f"Task {task} failed in step Train\n\n[P602] the loss became NaN\n  → lower start_lr\n")
    assert "Traceback of the step" in text
    results = dict(machine.results(task))
    assert results["failed_step.log"] == "epoch 1\nloss nan\n"
    assert {"step0.log", "step1.log", "step2.log"} <= set(results), "what was done before is kept"
    assert machine.statuses(task)[-1] == "FAILED"


@pytest.mark.parametrize("code", [40, 60])
def test_an_exit_code_without_a_reason_fails_the_job_at_once(machine, plan, code):
    plan(exit=code, steps=1)
    [task] = machine.queue()
    assert run(machine).retries == 0
    assert f"exit code {code}" in failure_text(machine, task)


@pytest.mark.parametrize(
    "ending",
    [
        {"exit": 40, "failure": {"code": "P300", "what": "replica gone", "hint": "wait", "step": "DownloadAOD"}},
        {"exit": 137},
    ],
)
def test_what_may_pass_is_tried_again(machine, plan, ending):
    plan(**ending, fail_runs=2)
    [task] = machine.queue()
    counts = run(machine)
    assert (counts.completed, counts.retries) == (1, 2)
    assert sorted(machine.results(task)) == sorted(expected_results(task))
    assert machine.statuses(task) == ["QUEUED", "TRAINING", "BENCHMARKING", "COMPLETED"]


@pytest.mark.slow
def test_tries_without_progress_come_to_an_end(machine, plan):
    plan(exit=40, failure={"code": "P300", "what": "replica gone", "hint": "", "step": "DownloadAOD"})
    [task] = machine.queue()
    counts = run(machine)
    assert (counts.failed, counts.retries) == (1, machine.settings.limits.attempts - 1)
    assert "runs      4" in failure_text(machine, task)


@pytest.mark.slow
def test_no_other_task_is_claimed_while_one_waits_to_be_tried_again(machine, plan):
    plan(exit=20, fail_runs=1)
    first, second = machine.queue(2)
    seen = []

    def command(job):
        seen.append((job.task_id, machine.status(second).name))
        return fake_command(job)

    poll(machine.settings, drain=True, command=command)
    assert seen[:2] == [(first, "QUEUED"), (first, "QUEUED")]
    assert machine.status(second) is TaskStatus.COMPLETED


def test_a_result_that_the_server_refuses_fails_the_task(machine):
    [task] = machine.queue()
    refuse = []
    with fault_proxy(machine.server.url) as proxy:

        def choose(method, path):
            if path.endswith("training-task-results"):
                refuse.append(path)
                return Answer(422, body=b"this kind of file is not wanted") if len(refuse) == 2 else None
            return None

        proxy.choose = choose
        counts = run(machine.at(proxy.url))
    assert (counts.completed, counts.failed) == (0, 1)
    assert "this kind of file is not wanted" in failure_text(machine, task)
    assert machine.statuses(task)[-1] == "FAILED"


@pytest.mark.slow
def test_a_machine_that_fails_job_after_job_spares_the_queue(machine, plan, tmp_path):
    plan(exit=40, steps=0)
    tasks = machine.queue(5)
    poller = machine.start_poller(log=tmp_path / "log")
    eventually(lambda: "failed in a row" in (tmp_path / "log").read_text())
    poller.terminate()
    assert poller.wait(10) == 0
    assert [machine.status(task).name for task in tasks] == ["FAILED"] * 3 + ["QUEUED"] * 2
