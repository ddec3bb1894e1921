"""A whole job on batch systems, real ones and stand-ins whose jobs really run: the same outputs as on one machine."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.schedulers.daemons import Daemons
from support.schedulers.standin import StandIn
from support.small_job import write_job

from pidml.experiment import create_experiment
from pidml.law_command import law_command, law_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
#: What a job of two files is made of on a batch system.
JOBS = {"DownloadAOD-0": 1, "DownloadAOD-1": 1, "ProduceTracks-0": 1, "ProduceTracks-1": 1, "Train-0": 1}
PROFILES = {"slurm": "slurm", "htcondor": "farm"}


@dataclass
class Local:
    """A job and what it gives on this machine: arrays of the prepared data and metrics."""

    job: Path
    arrays: dict[Path, bytes]
    metrics: object


def run_job(store: Path, job: Path, **environment: str) -> None:
    store.mkdir()
    done = subprocess.run(
        law_command("Benchmark", ["--job", str(job)]), env=law_environment(store) | environment, cwd=store,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def results(store: Path) -> tuple[dict[Path, bytes], object]:
    arrays = {path.relative_to(store): path.read_bytes() for path in store.glob("PrepareDataset/*/**/*.npy")}
    (metrics,) = store.glob("Benchmark/*/metrics.json")
    return arrays, json.loads(metrics.read_text())


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    folder = tmp_path_factory.mktemp("whole")
    job = write_job(
        folder, tracks=4000, files=2, fmt="ao2d", producer={"files_per_group": 1},
        resources={"train": {"cores": len(os.sched_getaffinity(0))}},
    )  # fmt: skip
    run_job(folder / "local", job)
    arrays, metrics = results(folder / "local")
    assert len(arrays) == 9
    return Local(job, arrays, metrics)


def test_the_same_outputs_on_stand_in_commands(local: Local, tmp_path: Path) -> None:
    scheduler = StandIn(tmp_path / "spool")
    with scheduler.running():
        run_job(tmp_path / "store", local.job, PIDML_SITE="farm", **scheduler.environment)
    assert {"-".join(job["name"].split("-")[1:3]): 1 for job in scheduler.jobs()} == JOBS
    assert len(scheduler.jobs()) == len(JOBS)
    assert results(tmp_path / "store") == (local.arrays, local.metrics)


def run_in_folder(local: Local, tmp_path: Path, profile: str, environment: dict[str, str]) -> Path:
    """Make an experiment folder with `pidml init`'s own function and run the job there; returns the folder."""
    folder = create_experiment(tmp_path / "experiment", profile, "sandbox")
    (folder / "job.yaml").write_text(local.job.read_text())
    command = [str(folder / "run.sh"), "law", "run", "Benchmark", "--job", str(folder / "job.yaml")]
    done = subprocess.run(
        command, env=os.environ | environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert results(folder / "store") == (local.arrays, local.metrics)
    return folder


def test_the_same_outputs_in_an_experiment_folder(local: Local, tmp_path: Path) -> None:
    scheduler = StandIn(tmp_path / "spool")
    with scheduler.running():
        run_in_folder(local, tmp_path, "slurm", scheduler.environment)
    assert len(scheduler.jobs()) == len(JOBS)


@pytest.mark.scheduler
@pytest.mark.parametrize("kind", ["slurm", "htcondor"])
def test_the_same_outputs_in_an_experiment_folder_on_a_real_scheduler(
    local: Local, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    scheduler: Daemons = request.getfixturevalue(kind)
    store = run_in_folder(local, tmp_path, PROFILES[kind], scheduler.environment) / "store"
    jobs = scheduler.jobs(store)
    assert {"-".join(name.split("-")[1:3]): 1 for name, _ in jobs} == JOBS
    assert [state for _, state in jobs] == ["COMPLETED"] * len(JOBS), "each job once"
    assert "task exit code: 0" in next(store.glob("Train/*.job.log")).read_text()
