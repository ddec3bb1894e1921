"""Several devices: processes that train together, give one set of outputs, and leave no one behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from support import small_training
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.errors import Diverged, Interrupted, TrainingError
from pidml.response import fit_response
from pidml.spec.response_section import Response
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train
from pidml.training.processes import Member, companions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (8000, 3000, 1000))


def without_dropout(**training):
    job = small_job(**training)
    return job.model_copy(update={"model": job.model.model_copy(update={"dropout": 0.0})})


def trained(prepared, folder, name, job, **options):
    (folder / name).mkdir(exist_ok=True)
    return train(prepared, job, TARGET_NAMES, folder / f"{name}.work", folder / name, **options)


def history(folder):
    return np.loadtxt(folder / "history.csv", delimiter=",", skiprows=1)[:, :4]


@pytest.fixture
def own_processes():
    """Return a function that lists the processes started since; other tests' servers may be running."""
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    return lambda: [each.pid for each in psutil.Process().children(recursive=True) if each.pid not in before]


def test_two_processes_train_what_one_does_and_write_once(prepared, tmp_path, own_processes):
    environment = dict(os.environ)
    one = trained(prepared, tmp_path, "one", without_dropout())
    two = trained(prepared, tmp_path, "two", without_dropout(devices=2))
    assert own_processes() == []
    assert not torch.distributed.is_initialized()
    assert dict(os.environ) == environment
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )
    np.testing.assert_allclose(history(tmp_path / "two"), history(tmp_path / "one"), rtol=1e-4)
    assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-4)
    features = prepared.split("test").features
    scores = [load_classifier(tmp_path / name).predict(features) for name in ("one", "two")]
    np.testing.assert_allclose(*scores, atol=1e-3)


def test_derived_features_and_streamed_samples_in_two_processes(prepared, tmp_path):
    response = fit_response(prepared, Response(epochs=1, species=("pion", "kaon", "proton")), seed=1).response
    summaries = {}
    for name, devices, options in (("one", 1, {}), ("two", 2, {"resident_bytes": 0})):
        job = without_dropout(devices=devices, max_epochs=2, class_weights="balanced")
        job = job.model_copy(update={"dataset": job.dataset.model_copy(update={"derive": ("tpc_nsigma",)})})
        summaries[name] = trained(prepared, tmp_path, name, job, derived=[response], **options)
    np.testing.assert_allclose(history(tmp_path / "two"), history(tmp_path / "one"), rtol=1e-4)
    assert summaries["two"].validation_loss == pytest.approx(summaries["one"].validation_loss, rel=1e-4)


def test_memory_that_runs_out_in_another_process_makes_all_take_smaller_parts(prepared, tmp_path, monkeypatch, caplog):
    folders = [str(Path.cwd() / name) for name in ("", "tests")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    monkeypatch.setattr("pidml.training.processes._PROGRAM", "from support.refusing import main; main()")
    refused = trained(prepared, tmp_path, "refused", without_dropout(devices=2, max_epochs=3))
    assert "process 1: " in caplog.text
    assert "each batch is now taken in 2 parts" in caplog.text
    assert refused.parts == 2
    one = trained(prepared, tmp_path, "one", without_dropout(max_epochs=3))
    assert refused.validation_loss == pytest.approx(one.validation_loss, rel=1e-3)
    np.testing.assert_allclose(history(tmp_path / "refused"), history(tmp_path / "one"), rtol=1e-3)


def test_stopped_and_resumed_equals_uninterrupted(prepared, tmp_path, own_processes):
    job = small_job(devices=2, undersample=True, batch_size=64, max_epochs=3)
    with pytest.raises(Interrupted, match="after epoch 1"):
        trained(prepared, tmp_path, "stopped", job, after_epoch=lambda *_: True)
    assert own_processes() == []
    resumed = trained(prepared, tmp_path, "stopped", job)
    assert resumed.resumed_epochs == 1
    trained(prepared, tmp_path, "whole", job)
    np.testing.assert_array_equal(history(tmp_path / "stopped"), history(tmp_path / "whole"))


def group_is_empty(group, seconds=30):
    """Wait until no process of a group is left; whoever is left is named."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        left = [each for each in psutil.process_iter() if _group(each.pid) == group and _alive(each)]
        if not left:
            return True
        psutil.wait_procs(left, timeout=0.2)
    return False


def _group(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_killed_leaves_no_process_and_is_resumed(prepared, tmp_path):
    command = [sys.executable, small_training.__file__, prepared.path, tmp_path / "out.work", tmp_path / "lost"]
    command += ["masked-mlp", "step", 75, 2]
    environment = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(list(map(str, command)), env=environment, start_new_session=True, stderr=log)
        assert process.wait(120) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert group_is_empty(process.pid)
    assert not any((tmp_path / "lost").iterdir())
    resumed = trained(prepared, tmp_path, "out", small_job(devices=2))
    assert resumed.resumed_epochs == 2
    trained(prepared, tmp_path, "whole", small_job(devices=2))
    np.testing.assert_array_equal(history(tmp_path / "out"), history(tmp_path / "whole"))


def test_a_process_that_is_lost_is_an_error_and_the_checkpoint_stays(prepared, tmp_path, own_processes):
    lost = []

    def kill_the_other(*_):
        lost.extend(own_processes())
        os.kill(lost[0], signal.SIGKILL)
        return False

    with pytest.raises(TrainingError, match="process 1 of the 2 that train together ended with status -9"):
        trained(prepared, tmp_path, "out", small_job(devices=2), after_epoch=kill_the_other)
    assert own_processes() == []
    assert trained(prepared, tmp_path, "out", small_job(devices=2)).resumed_epochs == len(set(lost))


def fail(member: Member) -> None:
    """What the other process does in the next test."""
    raise Diverged(f"in process {member.rank}", "lower it")


def test_what_goes_wrong_in_another_process_is_told(monkeypatch, own_processes):
    folders = [str(Path.cwd() / name) for name in ("", "tests", "tests/pidml")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    with pytest.raises(Diverged, match="in process 1") as told, companions(2, fail):
        pass
    assert told.value.hint == "lower it"
    assert own_processes() == []


def test_a_process_that_cannot_start_is_told(monkeypatch):
    monkeypatch.setattr("pidml.training.processes._PROGRAM", "raise SystemExit(3)")
    with pytest.raises(TrainingError, match="ended with status 3"), companions(2, fail):
        pytest.fail("nobody came")
