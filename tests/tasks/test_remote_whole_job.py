"""A whole job on stand-in batch systems whose jobs really run: the same outputs as on one machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.schedulers.standin import StandIn
from support.small_job import write_job

from pidml.experiment import create_experiment
from pidml.law_command import law_command, law_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


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


def test_the_same_outputs_here_on_slurm_on_htcondor_and_in_an_experiment_folder(tmp_path: Path) -> None:
    job = write_job(
        tmp_path, tracks=4000, files=2, fmt="ao2d", producer={"files_per_group": 1},
        resources={"train": {"cores": len(os.sched_getaffinity(0))}},
    )  # fmt: skip
    run_job(tmp_path / "local", job)
    arrays, metrics = results(tmp_path / "local")
    assert len(arrays) == 9
    for profile in ("slurm", "farm"):
        scheduler = StandIn(tmp_path / f"spool-{profile}")
        with scheduler.running():
            run_job(tmp_path / profile, job, PIDML_SITE=profile, **scheduler.environment)
        assert {name["name"].split("-")[1] for name in scheduler.jobs()} == {"DownloadAOD", "ProduceTracks", "Train"}
        assert len(scheduler.jobs()) == 5
        assert results(tmp_path / profile) == (arrays, metrics)

    folder = create_experiment(tmp_path / "experiment", "slurm", "sandbox")
    (folder / "job.yaml").write_text(job.read_text())
    scheduler = StandIn(tmp_path / "spool-experiment")
    command = [str(folder / "run.sh"), "law", "run", "Benchmark", "--job", str(folder / "job.yaml")]
    with scheduler.running():
        done = subprocess.run(
            command, env=os.environ | scheduler.environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=500, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(scheduler.jobs()) == 5
    assert results(folder / "store") == (arrays, metrics)
