"""Containers outlive whoever asked for them, unless somebody ends them: kills, stop signals, an engine that is away."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.container_daemon import container_daemon
from support.machine import running_machine
from support.o2_setup import IMAGE, install
from support.waiting import eventually

from pidml.atomic import exclusive
from pidml.errors import ProducerError
from pidml.poller.loop import poll
from pidml.producer.containers import end_leftovers, records_of
from pidml.producer.o2physics import produce_o2physics
from pidml.simulation import write_ao2d, write_track_table
from pidml.spec.data_sections import Producer

#: Runs the chain in a container, as a step does; needs the environment of the stand-ins.
STEP = """
import sys
from pathlib import Path
from pidml.producer.containers import records_of
from pidml.producer.o2physics import produce_o2physics
from pidml.spec.data_sections import Producer
source, store = Path(sys.argv[1]), Path(sys.argv[2])
out = store / "out"
out.mkdir(parents=True, exist_ok=True)
producer = Producer(backend="o2physics", runtime="container", container_image=sys.argv[3])
produce_o2physics([source], out, producer, simulation=True, records=records_of(store))
"""


@pytest.fixture
def o2(tmp_path):
    """Stand-ins whose last stage hangs."""
    ready = str(tmp_path / "ready.root")
    write_track_table(ready, 30, 1, frames=1)
    write_ao2d(tmp_path / "AO2D.root", 20, seed=1, frames=1)
    with container_daemon() as daemon:
        stand_ins = install(tmp_path / "o2", {"O2pidtracksmcml": ready, "histograms": ready}, daemon)
        stand_ins.faults(pid_ml_producer={"hang": True})
        yield stand_ins


def step(tmp_path, store: Path) -> list[str]:
    return [sys.executable, "-c", STEP, str(tmp_path / "AO2D.root"), str(store), IMAGE]


def start(o2, tmp_path, store: Path) -> subprocess.Popen:
    environment = {**os.environ, **o2.environment("docker")}
    process = subprocess.Popen(step(tmp_path, store), env=environment, start_new_session=True)
    eventually(lambda: hangs(o2))
    return process


def hangs(o2) -> bool:
    return bool(o2.calls("o2-analysis-pid-ml-producer"))


def records(store: Path) -> list[Path]:
    return [path for path in records_of(store).iterdir() if not path.name.startswith(".")]


def make(o2, tmp_path, name: str = "again") -> None:
    """Run the chain here, to its end."""
    o2.faults()
    (tmp_path / name).mkdir()
    producer = Producer(backend="o2physics", container_image=IMAGE)
    produce_o2physics(
        [tmp_path / "AO2D.root"],
        tmp_path / name,
        producer,
        simulation=True,
        records=records_of(tmp_path),
        environ=o2.environment("docker"),
    )


def test_a_container_left_by_a_kill_is_ended_by_the_next_run_in_the_store(o2, tmp_path):
    killed = start(o2, tmp_path, tmp_path)
    [left] = o2.daemon.running()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert o2.daemon.running() == [left], "neither the step nor the client could end it"
    [record] = records(tmp_path)
    assert json.loads(record.read_text())["name"] == left
    make(o2, tmp_path)
    assert o2.daemon.running() == []
    assert list(records_of(tmp_path).iterdir()) == []
    assert ["rm", "--force", left] in [call["arguments"] for call in o2.calls("docker")]


def test_a_stop_signal_ends_the_container_and_then_the_step(o2, tmp_path):
    process = start(o2, tmp_path, tmp_path)
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM
    assert o2.daemon.running() == []
    assert list(records_of(tmp_path).iterdir()) == []


def test_a_client_that_dies_fails_the_step_and_its_container_goes_with_it(o2, tmp_path):
    process = start(o2, tmp_path, tmp_path)
    [client] = [each for each in psutil.Process(process.pid).children() if "docker" in " ".join(each.cmdline())]
    client.kill()
    assert process.wait(20) == 1
    assert o2.daemon.running() == []
    assert records(tmp_path) == []


def test_a_container_that_somebody_waits_for_is_left_alone(o2, tmp_path):
    process = start(o2, tmp_path, tmp_path)
    assert end_leftovers(records_of(tmp_path), o2.environment("docker")) == []
    assert len(o2.daemon.running()) == 1
    process.terminate()
    process.wait(20)


def test_an_engine_that_does_not_answer_is_asked_again_later(o2, tmp_path):
    killed = start(o2, tmp_path, tmp_path)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    [left] = o2.daemon.running()
    o2.daemon.refuses = True
    [said] = end_leftovers(records_of(tmp_path), o2.environment("docker"))
    assert said == f"container {left} may still run: end it with `docker rm --force {left}`"
    o2.daemon.refuses = False
    [said] = end_leftovers(records_of(tmp_path), o2.environment("docker"))
    assert said == f"container {left}, left by a process that was killed, is ended"
    assert o2.daemon.running() == []
    assert records(tmp_path) == []


def test_another_host_s_record_and_one_that_is_held_are_left_alone(o2, tmp_path):
    folder = records_of(tmp_path)
    folder.mkdir()
    told = {"program": "/no/docker", "name": "pidml-1"}
    (folder / "pidml-1.json").write_text(json.dumps(told | {"host": "elsewhere"}))
    (folder / "pidml-2.json").write_text(json.dumps(told | {"host": platform.node()}))
    with exclusive(folder / "pidml-2.json"):
        assert end_leftovers(folder) == []
    assert len(end_leftovers(folder)) == 1


def test_a_container_that_cannot_be_put_on_the_record_is_not_started(o2, tmp_path):
    records_of(tmp_path).write_text("in the way")
    with pytest.raises(Exception, match="cannot write"):
        make(o2, tmp_path)
    assert o2.calls("docker") == []


def test_a_failed_chain_leaves_no_record(o2, tmp_path):
    make(o2, tmp_path)
    o2.faults(pid_ml_producer={"status": 3})
    (tmp_path / "failed").mkdir()
    with pytest.raises(ProducerError, match="stage 8"):
        produce_o2physics(
            [tmp_path / "AO2D.root"],
            tmp_path / "failed",
            Producer(backend="o2physics", container_image=IMAGE),
            simulation=True,
            records=records_of(tmp_path),
            environ=o2.environment("docker"),
        )
    assert list(records_of(tmp_path).iterdir()) == []


@pytest.mark.slow
def test_the_poller_ends_containers_of_its_earlier_life(o2, tmp_path, monkeypatch):
    monkeypatch.setenv("O2_STAND_IN", o2.environment("docker")["O2_STAND_IN"])
    with running_machine(tmp_path) as machine:
        machine.queue()
        command = step(tmp_path, machine.settings.store)
        runner = tmp_path / "runner.py"
        runner.write_text(
            "from pidml.poller.loop import poll\nfrom pidml.settings import Settings\n"
            f"poll(Settings.load(dotenv=None), command=lambda job: {command!r})\n"
        )
        environment = machine.environment(**o2.environment("docker"))
        environment["MACHINE_SECRET_KEY"] = machine.settings.secret.reveal()
        poller = subprocess.Popen([sys.executable, str(runner)], env=environment)
        eventually(lambda: hangs(o2))
        poller.kill()
        poller.wait()
        assert len(o2.daemon.running()) == 1
        quick = lambda job: [sys.executable, "-c", "pass"]  # noqa: E731
        assert poll(machine.settings, drain=True, command=quick).recovered == 1
        assert o2.daemon.running() == []
        assert records(machine.settings.store) == []
