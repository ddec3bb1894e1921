"""What a person and a monitoring system see of a poller: `pidml status` and the Prometheus file."""

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.poller import run
from support.waiting import eventually

from pidml.alicetraint.jobs import job_directory
from pidml.poller.status import status


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
