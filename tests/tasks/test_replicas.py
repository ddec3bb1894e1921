"""Replicas as tasks: each has an address of its own, is made once, anywhere, and taken up after a kill."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from support.schedulers.standin import StandIn
from support.small_job import kill_group, law_run, law_start, outputs, write_job
from support.waiting import eventually

from pidml.law_command import law_command, law_environment
from pidml.store import Store, index_key
from tasks.replicas import MeasureSpread, TrainReplicas
from tasks.steps import owed_steps
from tasks.train import Train

STEPS = ("Train", "TrainReplicas", "MeasureSpread")


def asking(job: Path, **replicas: int) -> Path:
    """Change what a job asks for."""
    content = yaml.safe_load(job.read_text())
    job.write_text(yaml.safe_dump(content | {"replicas": replicas}))
    return job


def copy_asking(job: Path, **replicas: int) -> Path:
    """Return a copy of a job that asks for something: luigi keeps the tasks of a job that it has seen."""
    copy = job.with_name("-".join(f"{key}{value}" for key, value in replicas.items()) + ".yaml")
    copy.write_text(job.read_text())
    return asking(copy, **replicas)


def digests(job: Path) -> list[str]:
    workflow = TrainReplicas(job=str(job))
    return [TrainReplicas.req(workflow, branch=branch).digest for branch in workflow.branch_map]


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job that asks for no replicas yet; its files need not exist."""
    monkeypatch.setenv("PIDML_STORE", str(tmp_path / "store"))
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"dataset": {"files": ["/alice/sim/2024/a.root"]}}))
    return path


def test_more_replicas_leave_those_before_where_they_are(plain: Path) -> None:
    few, many, folds = (
        set(digests(copy_asking(plain, **asked)))
        for asked in ({"seeds": 3, "folds": 2}, {"seeds": 5, "folds": 2}, {"seeds": 3, "folds": 4})
    )
    assert (len(few), len(many), len(folds)) == (4, 6, 6)
    assert few < many
    assert len(few & folds) == 2, "the seeds; a fold of two is none of four"


def test_replicas_differ_in_seed_and_fold_and_nothing_else(plain: Path) -> None:
    job = asking(plain, seeds=2, folds=2)
    own = Train(job=str(job), branch=0)
    settings = [TrainReplicas(job=str(job), branch=branch).settings() for branch in range(3)]
    for each, (seed, fold) in zip(settings, [(43, None), (42, [1, 2]), (42, [2, 2])], strict=True):
        assert each == own.settings() | {"seed": seed, "fold": fold}
    upstream = [[task.digest for task in TrainReplicas(job=str(job), branch=b).upstream()] for b in range(3)]
    assert all(each == [task.digest for task in own.upstream()] for each in upstream), "the same prepared data"


def test_separate_networks_have_a_branch_each(plain: Path) -> None:
    content = yaml.safe_load(plain.read_text())
    plain.write_text(yaml.safe_dump(content | {"model": {"heads": "separate"}}))
    workflow = TrainReplicas(job=str(asking(plain, seeds=2, folds=2)))
    assert len(workflow.branch_map) == 18
    assert len(set(digests(plain))) == 18


def test_a_job_owes_its_replicas_only_if_it_says_so(plain: Path) -> None:
    assert {TrainReplicas, MeasureSpread}.isdisjoint(owed_steps(Train(job=str(plain))))
    names = [step.__name__ for step in owed_steps(Train(job=str(copy_asking(plain, folds=3))))]
    assert names[-3:] == ["TrainReplicas", "MeasureSpread", "Report"]


def test_a_spread_of_nothing_is_refused(plain: Path, tmp_path: Path) -> None:
    result = law_run(tmp_path / "store", "MeasureSpread", "--job", str(plain))
    assert result.returncode == 50
    assert "[P100] replicas: seeds = 1, folds = 0" in result.stdout + result.stderr
    one_fold = law_run(tmp_path / "store", "MeasureSpread", "--job", str(asking(plain, folds=1)))
    assert "folds = 1: nothing would be left to train on" in one_fold.stdout + one_fold.stderr


def state(folder: Path) -> dict[str, torch.Tensor]:
    content: dict[str, Any] = torch.load(folder / "model.pt", weights_only=True)["state"]
    return content


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_only_what_is_new_or_gone_is_trained_again(tmp_path: Path) -> None:
    store, job = tmp_path / "store", asking(write_job(tmp_path, files=1), folds=2)
    first = law_run(store, "MeasureSpread", "--job", str(job))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "F1          2 folds" in first.stdout
    before = outputs(store, STEPS)["TrainReplicas"]
    states = {path: state(path) for path in before}
    assert not any(same(one, other) for one, other in itertools.combinations(states.values(), 2))
    for path in before[0].iterdir():
        path.unlink()
    before[0].rmdir()
    second = law_run(store, "MeasureSpread", "--job", str(asking(job, folds=2, seeds=2)))
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count(" started") == 3, second.stdout  # the seed, the fold that was gone, the spread
    made = outputs(store, STEPS)
    assert {step: len(paths) for step, paths in made.items()} == {"Train": 1, "TrainReplicas": 3, "MeasureSpread": 2}
    assert same(state(before[0]), states[before[0]]), "the same training gives the same network"
    known = json.dumps(Store(store).index_content(index_key(str(job))))
    assert all(f'"{path.name}"' in known for path in made["TrainReplicas"])


@pytest.mark.slow
def test_a_replica_that_was_killed_goes_on(tmp_path: Path) -> None:
    training = {"batch_size": 256, "max_epochs": 40, "patience": 40, "learning_rate": 0.001, "accelerator": "cpu"}
    job = asking(write_job(tmp_path, files=1, training=training), folds=2)
    whole = law_run(tmp_path / "undisturbed", "TrainReplicas", "--job", str(job), "--branch", "1")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    store = tmp_path / "store"
    process = law_start(store, "TrainReplicas", "--job", str(job), "--branch", "1")
    try:
        eventually(lambda: list(store.glob("TrainReplicas/*.work/last.ckpt")) or process.poll() is not None, 120)
    finally:
        kill_group(process)
    assert outputs(store, STEPS)["TrainReplicas"] == []
    again = law_run(store, "TrainReplicas", "--job", str(job), "--branch", "1")
    assert again.returncode == 0, again.stdout + again.stderr
    (made,) = outputs(store, STEPS)["TrainReplicas"]
    (expected,) = outputs(tmp_path / "undisturbed", STEPS)["TrainReplicas"]
    assert json.loads((made / "training.json").read_text())["resumed_epochs"] > 0
    assert made.name == expected.name
    assert same(state(made), state(expected))
    assert not list(store.glob("TrainReplicas/*.work"))


@pytest.mark.slow
def test_a_batch_system_trains_the_replicas(tmp_path: Path) -> None:
    job = asking(write_job(tmp_path, files=1, resources={"train": {"cores": 1}}), seeds=2, folds=2)
    store, scheduler = tmp_path / "store", StandIn(tmp_path / "spool")
    store.mkdir()
    often = [text for step in ("Train", "TrainReplicas") for text in (f"--{step}-poll-interval", "0.005")]
    with scheduler.running():
        done = subprocess.run(
            law_command("MeasureSpread", ["--job", str(job), "--workflow", "slurm", *often]),
            env=law_environment(store) | scheduler.environment, cwd=store, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    names = sorted("-".join(each["name"].split("-")[1:3]) for each in scheduler.jobs())
    assert names == ["Train-0", *(f"TrainReplicas-{branch}" for branch in range(3))]
    (spread,) = outputs(store, STEPS)["MeasureSpread"]
    assert len(pd.read_csv(spread / "replicas.csv")) == 6 * (2 + 2 + 2)
