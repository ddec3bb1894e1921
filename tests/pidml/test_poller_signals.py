"""Pollers as processes: stop signals, reload, a second poller, deaths."""

import json
import signal
import subprocess
import sys

import pytest
from support.poller import failure_text, run
from support.waiting import alive, eventually

from pidml.alicetraint.jobs import job_directory
from pidml.errors import ConfigError
from pidml.poller.status import status
from pidml.server.protocol import TaskStatus


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
