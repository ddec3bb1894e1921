"""pidml doctor and pidml mock: what is looked at, what is said, and that no task is claimed by looking."""

import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.fault_proxy import Answer, fault_proxy
from support.machine import running_machine

from pidml.poller.doctor import doctor
from pidml.poller.mock import mock
from pidml.producer.containers import records_of
from pidml.secret import Secret
from pidml.server.protocol import TaskStatus
from pidml.settings import Settings
from pidml.species import TARGET_NAMES


@pytest.fixture
def machine(tmp_path):
    with running_machine(tmp_path) as running:
        yield running


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Return a function that puts a stand-in on an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("TMPDIR", "HOME"):
        monkeypatch.setenv(name, str(folder))

    def add(name: str, script: str = "") -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return add


def outcomes(settings: Settings) -> dict[str, tuple[str, str]]:
    found = {check.name: (check.outcome, check.found) for check in doctor(settings)}
    assert all(check.advice for check in doctor(settings) if check.outcome != "ok"), "says what to do"
    return found


def test_looking_claims_no_task_and_changes_no_status(machine, tools):
    [task] = machine.queue()
    found = outcomes(machine.settings)
    assert machine.status(task) is TaskStatus.QUEUED
    assert found["configuration"][0] == found["server"][0] == found["clock"][0] == found["store"][0] == "ok"
    assert found["key"][0] == "warning", "without a task of its own the server does not tell"


def test_the_key_is_tried_on_a_task_of_this_machine(machine, tools):
    [task] = machine.queue()
    assert mock(machine.settings) == 0
    before = machine.statuses(task)
    assert outcomes(machine.settings)["key"] == ("ok", "the server accepts this machine's key")
    wrong = replace(machine.settings, secret=Secret("wrong"))
    assert outcomes(wrong)["key"][0] == "failed"
    assert machine.statuses(task) == before


def test_mock_answers_a_task_with_one_file_of_each_kind(machine):
    [task] = machine.queue(configuration={"bs": 512})
    assert mock(machine.settings) == 0
    assert machine.statuses(task) == ["QUEUED", "TRAINING", "BENCHMARKING", "COMPLETED"]
    results = machine.server.store.results(task)
    assert [(each.name, int(each.type)) for each in results] == [
        ("mock.log", 0),
        ("mock.png", 1),
        *((f"{name}.onnx", 2) for name in TARGET_NAMES),
    ]
    assert results[1].media_type == "image/png"
    assert "no result of a training" in machine.server.store.result_path(results[2]).read_text()
    assert mock(machine.settings) == 1, "nothing is queued"


def test_what_is_missing_is_said(tmp_path, tools):
    given = {"PIDML_STORE": str(tmp_path / "s"), "ALICETRAINT_VENV_DIR_PATH": "/v", "MACHINE_ID": "3"}
    found = outcomes(Settings.load(given, dotenv=None))
    assert found["configuration"] == ("failed", "not set: MACHINE_SECRET_KEY, ALICETRAINT_BASE_URL")
    assert "server" not in found


def test_a_machine_without_a_server_lacks_nothing_for_jobs_of_its_own(tmp_path, tools):
    found = outcomes(Settings.load({"PIDML_STORE": str(tmp_path / "s")}, dotenv=None))
    assert found["configuration"] == ("warning", "no server: this machine runs jobs of its own only")
    assert "server" not in found
    assert "failed" not in {outcome for outcome, _ in found.values()}


def test_a_server_that_is_not_there(machine, tools):
    found = outcomes(machine.at("http://127.0.0.1:9").settings)
    assert found["server"][0] == "failed"


@pytest.mark.parametrize(("date", "outcome"), [("Wed, 21 Oct 2015 07:28:00 GMT", "failed"), ("no date", "warning")])
def test_a_clock_out_of_step(machine, tools, monkeypatch, date, outcome):
    monkeypatch.setattr("support.fault_proxy._Handler.date_time_string", lambda self, timestamp=None: date)
    with fault_proxy(machine.server.url) as proxy:
        proxy.choose = lambda method, path: Answer(200) if path == "/" else None
        assert outcomes(machine.at(proxy.url).settings)["clock"][0] == outcome


def test_an_address_without_encryption_and_a_store_that_cannot_be_written(tools, tmp_path, machine):
    (tmp_path / "file").write_text("")
    away = replace(machine.settings, base_url="http://192.0.2.1", store=tmp_path / "file" / "s", connect_seconds=0.05)
    found = outcomes(away)
    assert found["encryption"][0] == "warning"
    assert found["store"][0] == "failed"


def test_too_little_room(machine, tools):
    assert outcomes(machine.with_limits(min_free=2**60).settings)["store"][0] == "failed"


def test_tools_of_the_grid_and_the_producer(machine, tools, tmp_path):
    real = replace(machine.settings, grid="alien", producer="o2physics", site="farm")
    found = outcomes(real)
    assert (found["GRID client"][0], found["GRID certificate"][0]) == ("failed", "failed")
    assert (found["producer"][0], found["scheduler"][0], found["GPU"][0]) == ("failed", "failed", "ok")
    real = replace(real, site="")
    for name in ("alien_cp", "alienv", "sbatch"):
        tools(name)
    tools("nvidia-smi", "echo 'NVIDIA H200, 143771 MiB'")
    found = outcomes(real)
    assert [found[name][0] for name in ("GRID client", "producer", "scheduler")] == ["ok"] * 3
    assert found["GPU"] == ("ok", "NVIDIA H200, 143771 MiB")
    tools("nvidia-smi", "exit 9")
    assert outcomes(real)["GPU"][0] == "warning"


def make_certificate(certificate, key, days):
    command = ["/usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
    subprocess.run(
        [*command, "-days", str(days), "-keyout", str(key), "-out", str(certificate)], capture_output=True, check=True
    )


def test_the_ccdb_certificate_is_looked_at_if_one_is_named(machine, tools, tmp_path, monkeypatch):
    if not Path("/usr/bin/openssl").exists():
        pytest.skip("openssl is not installed")
    tools("openssl", 'exec /usr/bin/openssl "$@"')
    assert "CCDB certificate" not in outcomes(machine.settings)
    certificate, key = tmp_path / "ccdb.pem", tmp_path / "ccdb.key"
    make_certificate(certificate, key, days=10)
    named = replace(machine.settings, extra=(("PIDML_CCDB_CERT", str(certificate)), ("PIDML_CCDB_KEY", str(key))))
    assert outcomes(named)["CCDB certificate"][0] == "ok"
    for later, outcome in ((9.5, "warning"), (12.0, "failed")):
        clock = SimpleNamespace(time=lambda later=later: time.time() + later * 86_400)
        with monkeypatch.context() as patch:
            patch.setattr("pidml.poller.certificates.time", clock)
            found = outcomes(named)["CCDB certificate"]
        assert found[0] == outcome
    assert found[1] == "expired 2.0 days ago"
    make_certificate(certificate, tmp_path / "another.key", days=10)
    outcome, found = outcomes(named)["CCDB certificate"]
    assert outcome == "failed"
    assert "belong together" in found
    assert not any(str(tmp_path / "ccdb") in check.found + check.advice for check in doctor(named))
    alone = replace(machine.settings, extra=(("PIDML_CCDB_CERT", str(certificate)),))
    assert outcomes(alone)["CCDB certificate"] == ("failed", "PIDML_CCDB_CERT is set without PIDML_CCDB_KEY")


def test_the_container_runtime_is_named_and_asked(machine, tools):
    real = replace(
        machine.settings,
        producer="o2physics",
        extra=(("PIDML_O2PHYSICS_RUNTIME", "container"), ("PIDML_O2PHYSICS_IMAGE", "registry.example/o2:1")),
    )
    tools("docker", "echo 28.2.2")
    found = outcomes(real)
    assert found["producer"] == ("ok", "O2Physics by container registry.example/o2:1 in docker")
    assert found["container runtime"][0] == "ok"
    assert found["container runtime"][1].endswith("/docker (28.2.2)")
    assert found["tools"][1].startswith("docker of alien.py, ")
    tools("docker", "echo Cannot connect to the daemon >&2; exit 1")
    assert outcomes(real)["container runtime"][0] == "failed"
    assert outcomes(replace(real, producer="native"))["container runtime"][0] == "warning"
    tools("apptainer", "echo apptainer version 1.3.4")
    assert "apptainer version 1.3.4" in outcomes(real)["container runtime"][1]


def test_containers_on_the_record_without_a_poller(machine, tools):
    record = records_of(machine.settings.store) / "pidml-abc.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert outcomes(machine.settings)["containers"] == ("warning", "on the record as running: pidml-abc")
    record.unlink()
    assert "containers" not in outcomes(machine.settings)


def test_validity_of_the_grid_certificate(machine, tools, tmp_path):
    real = replace(machine.settings, grid="alien")
    certificate = tmp_path / "bin" / f"tokencert_{os.getuid()}.pem"
    if not Path("/usr/bin/openssl").exists():
        pytest.skip("openssl is not installed")
    make_certificate(certificate, tmp_path / "key", days=30)
    tools("openssl", 'exec /usr/bin/openssl "$@"')
    outcome, found = outcomes(real)[f"GRID certificate {certificate}"]
    assert outcome == "ok"
    assert 29 <= float(found.split()[2]) <= 30
    certificate.write_text("no certificate")
    assert outcomes(real)[f"GRID certificate {certificate}"][0] == "failed"


@pytest.mark.parametrize("text", ["[pidml_site]\nworkflow: pbs\n", "[pidml_site]\npartitoin: long\n", "no section\n"])
def test_a_poller_with_a_profile_that_cannot_be_used_claims_nothing(machine, tmp_path, text):
    [task] = machine.queue()
    (tmp_path / "site.cfg").write_text(text)
    command = [sys.executable, "-m", "pidml", "poll", "--once"]
    environment = machine.environment(PIDML_SITE=str(tmp_path / "site.cfg"))
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, machine.status(task)) == (1, TaskStatus.QUEUED)
    assert "[P900]" in done.stderr
    assert "Traceback" not in done.stderr
