"""The poller with the real server and a stand-in for law: every way a job can end, stops, resumes, retries."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_job import expected_results
from support.fault_proxy import Answer, Drop, fault_proxy
from support.machine import Machine, fake_command, running_machine
from test_poller_process import alive, eventually

from pidml.alicetraint.jobs import JobDirectory, job_directory, jobs_dir, store_claim
from pidml.errors import ConfigError, DiskFull, ServerError
from pidml.poller.loop import Poller, poll
from pidml.poller.status import status
from pidml.server.protocol import TaskStatus


@pytest.fixture(scope="module")
def server_machine(tmp_path_factory):
    with running_machine(tmp_path_factory.mktemp("machine")) as machine:
        yield machine


@pytest.fixture
def machine(server_machine, tmp_path) -> Machine:
    """The machine with a store of its own and an empty queue."""
    with server_machine.client() as client:
        while client.claim(os.urandom(8).hex()) is not None:
            pass
    return replace(server_machine, settings=replace(server_machine.settings, store=tmp_path / "store"))


@pytest.fixture
def plan(monkeypatch):
    return lambda **plan: monkeypatch.setenv("FAKE_JOB", json.dumps(plan))


def run(machine: Machine, **options):
    return poll(machine.settings, **({"drain": True} | options), command=fake_command)


def failure_text(machine: Machine, task: int) -> str:
    return dict(machine.results(task))[f"failure_task{task}.log"]


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


def test_once_says_if_the_server_cannot_be_asked(machine):
    with pytest.raises(ServerError, match="cannot be reached"):
        run(machine.at("http://127.0.0.1:9"))


@pytest.mark.slow
def test_a_machine_that_fails_job_after_job_spares_the_queue(machine, plan, tmp_path):
    plan(exit=40, steps=0)
    tasks = machine.queue(5)
    poller = machine.start_poller(log=tmp_path / "log")
    eventually(lambda: "failed in a row" in (tmp_path / "log").read_text())
    poller.terminate()
    assert poller.wait(10) == 0
    assert [machine.status(task).name for task in tasks] == ["FAILED"] * 3 + ["QUEUED"] * 2


def test_files_larger_than_the_whole_disk_fail_at_once_and_say_why(machine):
    [task] = machine.queue(Size=2**62)
    assert run(machine).retries == 0
    assert "exceed this machine's whole disk" in failure_text(machine, task)


def test_too_little_room_is_waited_for_and_then_said(machine, monkeypatch):
    total = os.statvfs(machine.settings.store.parent)
    room = total.f_bavail * total.f_frsize
    [task] = machine.queue(Size=int(room * 0.95))
    counts = run(machine)
    assert counts.retries == 3
    assert "are free for" in failure_text(machine, task)
    assert not job_directory(machine.settings.store, task).log_file.exists(), "it was never started"


def test_nothing_is_claimed_without_room(machine):
    [task] = machine.queue()
    with pytest.raises(DiskFull, match="must stay free"):
        run(machine.with_limits(min_free=2**60))
    assert machine.status(task) is TaskStatus.QUEUED


def test_a_disk_that_fills_up_ends_the_job(machine, plan, monkeypatch):
    plan(seconds=30)
    [task] = machine.queue()
    answers = iter([2**40] * 8)
    monkeypatch.setattr("pidml.poller.disk.free_bytes", lambda store: next(answers, 0))
    limited = machine.with_limits(min_free=1, attempts=1)
    counts = run(limited, once=True, drain=False)
    assert counts.failed == 1
    assert "[P201]" in failure_text(machine, task)


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


def test_a_job_that_runs_too_long_is_ended(machine, plan):
    plan(seconds=60)
    [task] = machine.queue()
    counts = run(machine.with_limits(wall_clock=0.5))
    assert counts.failed == 1
    assert "ran longer than" in failure_text(machine, task)


@pytest.mark.slow
def test_a_second_poller_is_refused_and_names_the_first(machine, plan, tmp_path):
    plan(seconds=30)
    machine.queue()
    first = machine.start_poller(log=tmp_path / "log")
    eventually(lambda: "starts, run 1" in (tmp_path / "log").read_text())
    with pytest.raises(ConfigError, match=f"process {first.pid}"):
        run(machine)
    first.terminate()
    first.send_signal(signal.SIGTERM)
    first.wait(20)
    assert status(machine.settings).poller_running is False


@pytest.mark.slow
def test_sigterm_lets_the_job_reach_a_safe_point_and_the_next_start_resumes_it(machine, plan, tmp_path):
    plan(steps=2, seconds=1.0)
    first, second = machine.queue(2)
    log = tmp_path / "log"
    poller = machine.start_poller(log=log)
    computed = machine.settings.store / "computed.log"
    eventually(computed.exists)
    job = job_directory(machine.settings.store, first)
    eventually(lambda: json.loads(job.progress_file.read_text())["step"] == "step1")
    assert status(machine.settings).poller_running
    poller.send_signal(signal.SIGTERM)
    assert poller.wait(10) == 0
    state = job.state()
    assert (state.phase, state.lives, state.attempts) == ("claimed", 0, 0)
    assert not job.stop_file.exists()
    assert machine.status(second) is TaskStatus.QUEUED
    assert run(machine).completed == 2
    assert sorted(computed.read_text().split("\n")[:-1]) == sorted(f"{t} {s}" for t in (first, second) for s in (0, 1))


@pytest.mark.slow
def test_a_job_that_heeds_nothing_is_ended_after_the_grace_period(machine, plan, tmp_path):
    patient = machine.with_limits(grace=0.3)
    [task] = machine.queue()
    script = "import os, signal, time; print(os.getpid(), flush=True); time.sleep(600)"
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import sys\nfrom pidml.poller.loop import poll\nfrom pidml.settings import Settings\n"
        f"poll(Settings.load(dotenv=None), command=lambda job: [sys.executable, '-c', {script!r}])\n"
    )
    poller = subprocess.Popen([sys.executable, str(runner)], env=patient.environment())
    law_log = job_directory(machine.settings.store, task).log_file
    eventually(lambda: law_log.exists() and law_log.read_text().strip()[-1:].isdigit())
    pid = int(law_log.read_text().split()[-1])
    poller.terminate()
    assert poller.wait(10) == 0
    assert not alive(pid)
    assert job_directory(machine.settings.store, task).state().phase == "claimed"


@pytest.mark.slow
def test_sighup_takes_a_new_key(machine, tmp_path):
    log = tmp_path / "log"
    registered = machine.settings.secret.reveal()
    dotenv = tmp_path / ".env"
    dotenv.write_text("MACHINE_SECRET_KEY=outdated\n")
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import sys\nfrom pathlib import Path\nfrom pidml.poller.logs import configure_logging\n"
        "from pidml.poller.loop import poll\nfrom pidml.settings import Settings\n"
        "from support.machine import fake_command\n"
        "configure_logging(json_lines=True)\nload = lambda: Settings.load(dotenv=Path(sys.argv[1]))\n"
        "poll(load(), command=fake_command, reload=load)\n"
    )
    environment = machine.environment()
    del environment["MACHINE_SECRET_KEY"]
    [task] = machine.queue()
    with log.open("wb") as stream:
        poller = subprocess.Popen([sys.executable, str(runner), str(dotenv)], env=environment, stderr=stream)
    eventually(lambda: "refuses this machine" in log.read_text())
    assert poller.poll() is None, "a refused key is not the end"
    dotenv.write_text(f"MACHINE_SECRET_KEY={registered}\n")
    poller.send_signal(signal.SIGHUP)
    eventually(lambda: machine.status(task) is TaskStatus.COMPLETED)
    poller.terminate()
    assert poller.wait(10) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    refused = [line for line in lines if "refuses this machine" in line["text"]]
    assert len(refused) == 1, "said once, not at every poll"
    assert registered not in log.read_text()


@pytest.mark.slow
def test_a_job_that_kills_the_poller_again_and_again_is_given_up(machine, tmp_path):
    fatal = machine.with_limits(lives=2)
    [task] = machine.queue()
    [other] = machine.queue()
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import os, sys\nfrom pidml.poller.loop import poll\nfrom pidml.settings import Settings\n"
        "kill = 'import os, signal; os.kill(os.getppid(), 0); os.kill(int(os.environ[\"POLLER\"]), signal.SIGKILL)'\n"
        "os.environ['POLLER'] = str(os.getpid())\n"
        f"command = lambda job: [sys.executable, '-c', kill if job.task_id == {task} else 'pass']\n"
        "poll(Settings.load(dotenv=None), drain=True, command=command)\n"
    )
    command = [sys.executable, str(runner)]
    codes = [subprocess.run(command, env=fatal.environment(), check=False).returncode for _ in range(4)]
    assert codes == [-9, -9, -9, 0]
    assert machine.status(task) is TaskStatus.FAILED
    assert "the poller died 3 times" in failure_text(machine, task)
    assert machine.status(other) is TaskStatus.COMPLETED


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


@pytest.mark.slow
def test_status_tells_step_progress_and_reasons(machine, plan, tmp_path):
    assert "no poller has run here" in status(machine.settings).headline
    plan(exit=40, failure={"code": "P400", "what": "bad table", "hint": "", "step": "PrepareDataset"})
    [bad] = machine.queue()
    run(machine)
    plan(seconds=30, steps=1)
    [long] = machine.queue()
    poller = machine.start_poller(log=tmp_path / "log")
    job = job_directory(machine.settings.store, long)
    eventually(lambda: job.progress_file.exists() and job.heartbeat_file.exists())
    found = status(machine.settings)
    assert [(each.task_id, each.state, each.step) for each in found.jobs] == [
        (long, "running", "step0"),
        (bad, "failed", "PrepareDataset"),
    ]
    assert found.jobs[1].detail == "[P400] bad table"
    assert 0 < found.jobs[0].progress <= 1
    assert f"process {poller.pid}" in found.headline
    assert json.loads(job.heartbeat_file.read_text())["elapsed_s"] >= 0
    for _ in range(2):
        poller.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    poller.wait(20)
    assert "not running" in status(machine.settings).headline


def test_prometheus_file(machine, tmp_path):
    machine.queue(2)
    metrics = tmp_path / "pidml.prom"
    run(replace(machine, settings=replace(machine.settings, metrics_file=metrics)))
    lines = dict(line.rsplit(" ", 1) for line in metrics.read_text().splitlines() if not line.startswith("#"))
    assert lines["pidml_poller_completed_total"] == "2"
    assert float(lines["pidml_poller_time_seconds"]) == pytest.approx(time.time(), abs=60)
    assert Path(metrics).read_text().endswith("\n")
