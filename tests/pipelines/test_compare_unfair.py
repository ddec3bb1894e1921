"""A comparison that would not be fair is refused before anything is downloaded, at the latest before any training."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.schedulers.standin import StandIn
from support.small_job import law_run, outputs, write_job

from pidml.errors import UnfairComparison
from pipelines import CompareModels

STEPS = ["DownloadAOD", "PrepareDataset", "Train", "ExportModel", "CompareModels"]


def variant(job: Path, name: str, **settings: Any) -> Path:
    """Write a job that differs in some settings; ``copies`` has it read copies of the first one's files."""
    content = yaml.safe_load(job.read_text())
    if settings.pop("copies", False):
        (job.parent / "copies").mkdir()
        files = [shutil.copy(file, job.parent / "copies") for file in content["dataset"]["files"]]
        settings["dataset"] = {"files": list(map(str, files))}
    path = job.with_name(f"{name}.yaml")
    path.write_text(yaml.safe_dump(content | settings))
    return path


def compare(store: Path, *jobs: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return law_run(store, "CompareModels", "--jobs", ",".join(map(str, jobs)), **environment)


def started(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split()[1] for line in result.stdout.splitlines() if line.endswith(" started")]


def made(store: Path) -> list[int]:
    return [len(folders) for folders in outputs(store, STEPS).values()]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_job(tmp_path, tracks=3000)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[StandIn]:
    """Commands of batch systems whose jobs really run."""
    made = StandIn(tmp_path / "spool")
    with made.running():
        yield made


def test_another_seed_is_refused_before_anything_is_downloaded(tmp_path: Path, job: Path) -> None:
    result = compare(tmp_path / "store", job, variant(job, "seed", seed=2024))
    assert result.returncode != 0
    assert "[P650] seed cannot be compared with job" in result.stderr
    assert "(seed: 42 and 2024)" in result.stderr
    assert "write `seed: 42` into both job files" in result.stderr
    assert "Traceback" not in result.stderr
    assert started(result) == []
    assert made(tmp_path / "store") == [0, 0, 0, 0, 0]


def test_other_cuts_are_refused_when_it_is_planned(tmp_path: Path, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIDML_STORE", str(tmp_path / "store"))
    other = variant(job, "cuts", preparation={"cuts": {"momentum_min": 0.2}})
    with pytest.raises(UnfairComparison, match=r"preparation\.cuts differ"):
        CompareModels(jobs=f"{job},{other}").deps()


def test_test_tracks_under_another_name_are_noticed_before_any_training(tmp_path: Path, job: Path) -> None:
    store, copy = tmp_path / "store", variant(job, "copy", copies=True, seed=2024)
    for rerun in (False, True):
        result = compare(store, job, copy)
        assert result.returncode != 0
        said = result.stdout + result.stderr
        assert "[P650] copy is trained on" in said
        assert "test tracks of job (seed: 42 and 2024, dataset.files)" in said
        assert "write `seed: 42` into both job files" in said
        assert "Traceback" not in said
        assert made(store) == [4, 2, 0, 0, 0]
        assert not started(result) or not rerun


def test_nothing_is_submitted_for_what_job_files_rule_out(tmp_path: Path, job: Path, scheduler: StandIn) -> None:
    other = variant(job, "seed", seed=2024)
    result = compare(tmp_path / "store", job, other, PIDML_SITE="slurm", **scheduler.environment)
    assert "[P650] seed cannot be compared with job" in result.stderr
    assert "Traceback" not in result.stderr
    assert scheduler.jobs() == []


def test_what_trainings_ask_for_is_still_looked_at_first(tmp_path: Path, job: Path, scheduler: StandIn) -> None:
    scheduler.set("partitions", "main*|1-00:00:00|(null)")
    other = variant(job, "long", model={"architecture": "mlp"}, resources={"train": {"time": 30}})
    result = compare(tmp_path / "store", job, other, PIDML_SITE="slurm", **scheduler.environment)
    assert "[P900] Train: jobs ask for 30 h, partition main allows 24 h" in result.stderr
    assert scheduler.jobs() == []
    assert made(tmp_path / "store") == [0, 0, 0, 0, 0]


@pytest.mark.slow
def test_on_a_batch_system_only_fair_comparisons_train(tmp_path: Path, job: Path, scheduler: StandIn) -> None:
    store, site = tmp_path / "store", {"PIDML_SITE": "slurm", **scheduler.environment}
    result = compare(store, job, variant(job, "copy", copies=True, seed=2024), **site)
    assert "[P650] copy is trained on" in result.stdout + result.stderr
    kinds = [each["name"].split("-")[1] for each in scheduler.jobs()]
    assert {"DownloadAOD", "ProduceTracks"} == set(kinds)
    mlp = variant(job, "mlp", model={"architecture": "mlp", "hidden": [8]})
    result = compare(store, job, mlp, **site)
    assert result.returncode == 0, result.stdout + result.stderr
    kinds = [each["name"].split("-")[1] for each in scheduler.jobs()][len(kinds) :]
    assert kinds == ["Train", "Train"]


@pytest.mark.slow
def test_models_that_exist_are_not_made_again(tmp_path: Path, job: Path) -> None:
    store, mlp = tmp_path / "store", variant(job, "mlp", model={"architecture": "mlp", "hidden": [8]})
    assert law_run(store, "ExportModel", "--job", str(job)).returncode == 0
    result = compare(store, job, mlp)
    assert result.returncode == 0, result.stdout + result.stderr
    assert started(result) == ["Train[0]", "ExportModel", "CompareModels"]
    result = compare(store, mlp, job)
    assert result.returncode == 0, result.stdout + result.stderr
    assert started(result) == ["CompareModels"]
    assert started(compare(store, mlp, job)) == []
    copy = variant(job, "copy", copies=True, seed=2024)
    assert law_run(store, "PrepareDataset", "--job", str(copy)).returncode == 0
    result = compare(store, job, copy)
    assert "[P650] copy is trained on" in result.stdout + result.stderr
    assert started(result) == []
    assert made(store) == [4, 2, 2, 2, 2]
