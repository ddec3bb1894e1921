"""Where Train runs: on the GPUs that it was given and holds, and, one network per species, as jobs of a farm."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.schedulers.standin import StandIn
from support.small_job import SETTINGS, law_run, write_job

from pidml.gpus import LOCKS, reserved
from pidml.law_command import law_command, law_environment
from pidml.species import TARGET_NAMES

pytestmark = pytest.mark.slow


@contextmanager
def driver(folder: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """A stand-in for nvidia-smi with two GPUs that no other process names; yields the variables and the UUIDs."""
    uuids = [f"GPU-{uuid.uuid4()}" for _ in range(2)]
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    rows = "\n".join(f"{index}, {each}" for index, each in enumerate(uuids))
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{rows}\nEND\n")
    program.chmod(0o755)
    try:
        yield {"PATH": f"{program.parent}:{os.environ['PATH']}"}, uuids
    finally:
        for each in uuids:
            with contextlib.suppress(FileNotFoundError):
                (LOCKS / f"{each}.lock").unlink()


def test_train_holds_the_gpu_that_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = write_job(tmp_path, tracks=3000, training=SETTINGS["training"] | {"accelerator": "auto"})
    store = tmp_path / "store"
    with driver(tmp_path) as (environment, uuids):
        monkeypatch.setenv("PATH", environment["PATH"])
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        with reserved("gpu", 1, "1", environment={}):
            refused = law_run(store, "Train", "--job", str(job), "--gpus", "1")
        assert refused.returncode == 40
        assert f"[P603] the training asks for 1 GPU; in use by others: 1 (process {os.getpid()})" in refused.stdout
        done = law_run(store, "Train", "--job", str(job), "--gpus", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        (log,) = store.glob("Train/*.log")
        assert f"trains on GPU 1 ({uuids[1]})" in log.read_text()
        (provenance,) = store.glob("Train/*/provenance.json")
        assert json.loads(provenance.read_text())["facts"]["devices"] == [uuids[1]]


def test_one_network_per_species_on_a_farm(tmp_path: Path) -> None:
    job = write_job(tmp_path, tracks=3000, model=SETTINGS["model"] | {"heads": "separate"})
    store = tmp_path / "store"
    store.mkdir()
    scheduler = StandIn(tmp_path / "spool")
    with scheduler.running():
        done = subprocess.run(
            law_command("Train", ["--job", str(job), "--branches", "1,5"]), cwd=store, stdin=subprocess.DEVNULL,
            env=law_environment(store) | scheduler.environment | {"PIDML_SITE": "farm"}, capture_output=True, text=True,
            timeout=280, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    jobs = [job["name"].split("-")[2] for job in scheduler.jobs() if job["name"].startswith("pidml-Train-")]
    assert sorted(jobs) == ["1", "5"], "one job per network, each once"
    made = [json.loads(path.read_text())["settings"]["species"] for path in store.glob("Train/*/provenance.json")]
    assert sorted(made) == sorted([TARGET_NAMES[branch]] for branch in (1, 5))
    assert len(list(store.glob("Train/*/model.pt"))) == 2
