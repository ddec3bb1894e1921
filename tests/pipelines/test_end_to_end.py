"""A queued task becomes networks on the server: real server, real HTTP, real poller, real law, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import onnx
import pytest
from support.training_site import CONFIGURATION, LFNS, Site, running_site

from pidml.server.protocol import FileType, TaskStatus
from pidml.species import TARGETS
from tasks.steps import STEPS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def completed(site: Site) -> int:
    """A task that went through."""
    task = site.queue(LFNS, CONFIGURATION)
    polled = site.poll("--once")
    assert polled.returncode == 0, polled.stderr + (site.folder / f"store/jobs/{task}/law.log").read_text()
    return task


def test_the_task_is_completed_and_its_networks_are_on_the_server(site: Site, completed: int) -> None:
    assert site.status(completed) is TaskStatus.COMPLETED
    history = [change.status for change in site.server.store.history(completed)]
    assert history == [TaskStatus.QUEUED, TaskStatus.TRAINING, TaskStatus.BENCHMARKING, TaskStatus.COMPLETED]
    results = site.results(completed)
    assert results["ONNX"] == sorted(f"{species.name}.onnx" for species in TARGETS)
    for result in site.server.store.results(completed):
        if result.type is FileType.ONNX:
            onnx.checker.check_model(onnx.load(site.server.store.result_path(result)))


def test_every_step_has_sent_its_log_and_no_two_results_share_a_name(site: Site, completed: int) -> None:
    results = site.results(completed)
    for number, step in enumerate(STEPS, start=1):
        assert f"{number:02d}_{step.__name__}.log" in results["LOG"]
    names = [name for kind in results.values() for name in kind]
    assert len(names) == len(set(names))
    assert len(results["IMAGE"]) > 10
    assert any("kaon" in name for name in results["IMAGE"])
    assert "report.html" in results["LOG"]


def test_feedback_comes_as_steps_end(site: Site, completed: int) -> None:
    order = [result.file_name for result in sorted(site.server.store.results(completed), key=lambda each: each.id)]
    assert order.index("04_PrepareDataset.log") < order.index("06_Train.log") < order.index("pion.onnx")


def test_polling_again_does_nothing(site: Site, completed: int) -> None:
    before = {path: path.stat().st_mtime_ns for path in (site.folder / "store").glob("[A-Z]*/**/*") if path.is_file()}
    count = len(site.server.store.results(completed))
    assert site.poll("--once").returncode == 0
    assert len(site.server.store.results(completed)) == count
    after = {path: path.stat().st_mtime_ns for path in (site.folder / "store").glob("[A-Z]*/**/*") if path.is_file()}
    assert after == before


def test_the_key_is_nowhere_that_a_run_writes(site: Site, completed: int) -> None:
    secret = site.machine.secret.encode()
    for root in (site.folder / "store", site.folder / "server"):
        for path in root.rglob("*"):
            if path.is_file():
                assert secret not in path.read_bytes(), path


def test_a_bad_task_fails_with_its_reason_and_the_poller_goes_on(site: Site, completed: int) -> None:
    """The second task shares everything with the completed one: only its uploads are left to do."""
    bad = site.queue(LFNS, CONFIGURATION | {"undersample": "no"})
    missing = site.queue(["/alice/sim/2026/LHC26t/0/7/AOD/999/AO2D.root"], CONFIGURATION)
    good = site.queue(LFNS, CONFIGURATION)
    polled = site.poll("--drain")
    assert polled.returncode == 1, polled.stderr
    assert (site.status(bad), site.status(missing), site.status(good)) == (
        TaskStatus.FAILED,
        TaskStatus.FAILED,
        TaskStatus.COMPLETED,
    )
    assert "undersample = 'no'" in _logs(site, bad)
    assert "999/AO2D.root" in _logs(site, missing)
    provenances = [json.loads(path.read_text()) for path in (site.folder / "store" / "Train").glob("*/provenance.json")]
    assert len(provenances) == 1


def _logs(site: Site, task: int) -> str:
    store = site.server.store
    return "".join(store.result_path(each).read_text() for each in store.results(task) if each.type is FileType.LOG)


@pytest.mark.slow
def test_a_poller_killed_in_the_middle_finishes_on_its_next_start(site: Site, completed: int) -> None:
    task = site.queue(LFNS, CONFIGURATION | {"max_epochs": 2})
    command, options = site.command("poll", "--once")
    poller = subprocess.Popen(command, **options)
    training = site.folder / "store" / "jobs" / str(task) / "progress.json"
    while not (training.is_file() and "Train" in training.read_text()):
        assert poller.poll() is None, "the poller ended before it was killed"
        os.sched_yield()
    poller.send_signal(signal.SIGKILL)
    poller.wait(timeout=30)
    assert site.poll("--once").returncode == 0
    assert site.status(task) is TaskStatus.COMPLETED
    names = [result.file_name for result in site.server.store.results(task)]
    assert len(names) == len(set(names))
