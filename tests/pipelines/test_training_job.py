"""A whole job through law: what it makes, what a rerun costs, what its exit code says."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from support.small_job import kill_group, law_run, law_start, outputs, python, write_job

from pidml.law_command import law_environment
from pidml.resources import ROOT
from pidml.species import TARGET_NAMES, TARGETS
from tasks.steps import STEPS

NAMES = [step.__name__ for step in STEPS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small job (two AO2D files) that has run: its file and its store."""
    folder = tmp_path_factory.mktemp("job")
    job = write_job(folder, fmt="ao2d")
    store = folder / "store"
    result = law_run(store, "TrainingJob", "--job", str(job))
    assert result.returncode == 0, result.stdout + result.stderr
    return job, store


def test_every_step_has_made_its_output(finished: tuple[Path, Path]) -> None:
    _, store = finished
    made = outputs(store, NAMES)
    assert {step: len(paths) for step, paths in made.items()} == dict.fromkeys(NAMES, 1) | {"DownloadAOD": 2}
    for paths in made.values():
        for path in paths:
            provenance = json.loads((path / "provenance.json").read_text())
            listed = {name: facts["bytes"] for name, facts in provenance["outputs"].items()}
            there = {str(f.relative_to(path)): f.stat().st_size for f in path.rglob("*") if f.is_file()}
            assert listed == {name: size for name, size in there.items() if name != "provenance.json"}
            assert (path.parent / f"{path.name}.log").read_text().rstrip().endswith(" s")


def test_the_networks_answer_for_every_track(finished: tuple[Path, Path]) -> None:
    _, store = finished
    (bundle,) = outputs(store, ["ExportModel"])["ExportModel"]
    tracks = np.full((4, 16), 0.5, np.float32)
    tracks[1, 1] = tracks[2, 2:4] = tracks[3, 1:4] = np.nan
    for species in TARGETS:
        session = onnxruntime.InferenceSession(bundle / f"{species.name}.onnx")
        certainty = session.run(None, {session.get_inputs()[0].name: tracks})[0]
        assert certainty.shape[0] == 4
        assert np.all((certainty >= 0) & (certainty <= 1))


def test_a_rerun_does_nothing_and_takes_seconds(finished: tuple[Path, Path]) -> None:
    job, store = finished
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    start = time.monotonic()
    result = law_run(store, "TrainingJob", "--job", str(job))
    seconds = time.monotonic() - start
    assert result.returncode == 0
    assert result.stdout == ""
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == before
    assert seconds < 10  # 2 s on an idle machine; benchmarks/overhead.py measures


def test_pidml_run_shows_what_the_job_achieved(finished: tuple[Path, Path]) -> None:
    job, store = finished
    done = python("-m", "pidml", "run", str(job), env=law_environment(store), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in TARGET_NAMES)
    places = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith(("report", "bundle")))
    assert Path(places["report"]).is_file()
    assert (Path(places["bundle"]) / "manifest.json").is_file()
    steps = json.loads(next((store / "index").glob("*.json")).read_text())["steps"]
    assert all(digests for _, digests in steps), "a step without outputs is none of the job's"


def test_print_status_shows_every_step_and_needs_no_heavy_import(finished: tuple[Path, Path]) -> None:
    job, store = finished
    result = law_run(store, "TrainingJob", "--job", str(job), "--print-status", "-1")
    assert result.returncode == 0
    for name in NAMES:
        assert name in result.stdout
    assert "absent" not in result.stdout
    heavy = "torch", "lightning", "matplotlib", "onnxruntime", "pandas"
    code = f"import sys, tasks, pipelines; print(sorted({set(heavy)} & set(sys.modules)))"
    assert python("-c", code, cwd=ROOT).stdout == "[]\n"


def test_removing_an_output_reruns_it_alone(finished: tuple[Path, Path], tmp_path: Path) -> None:
    job, original = finished
    store = tmp_path / "store"
    shutil.copytree(original, store)
    removed = law_run(store, "ExploreData", "--job", str(job), "--remove-output", "0,a")
    assert removed.returncode == 0, removed.stderr
    assert outputs(store, ["ExploreData"])["ExploreData"] == []
    assert len(outputs(store, ["Train"])["Train"]) == 1
    result = law_run(store, "ExploreData", "--job", str(job), "--remove-output", "0,a,y")
    assert result.returncode == 0, result.stderr
    assert [line.split()[1] for line in result.stdout.splitlines() if line.endswith("started")] == ["ExploreData"]


def test_the_index_of_tasks_is_up_to_date(tmp_path: Path) -> None:
    environment = law_environment(tmp_path) | {"LAW__core__index_file": str(tmp_path / "index")}
    assert python("-m", "law", "index", "--quiet", env=environment, cwd=ROOT).returncode == 0
    assert (tmp_path / "index").read_text() == (ROOT / "configs" / "law-index").read_text()


def test_a_job_about_experimental_data_is_refused_before_anything_is_obtained(tmp_path: Path) -> None:
    job = tmp_path / "data.yaml"
    job.write_text(yaml.safe_dump({"dataset": {"files": [str(tmp_path / "absent.root")], "simulation": False}}))
    result = law_run(tmp_path / "store", "TrainingJob", "--job", str(job))
    assert result.returncode == 50
    assert "[P605]" in result.stdout + result.stderr
    assert "adaptation.files" in result.stdout + result.stderr
    assert list((tmp_path / "store").glob("[A-Z]*")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["TrainingJob", "--job", "nothing"], 50, "no preset is called 'nothing'"),
        (["TrainingJob"], 50, "which job?"),
        (["TrainingJob", "--job", "{job}", "--nonsense", "1"], 2, "nonsense"),
    ],
)
def test_exit_codes(tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    job = write_job(tmp_path)
    result = law_run(tmp_path / "store", *(argument.format(job=job) for argument in arguments))
    assert result.returncode == code, result.stderr
    assert text in result.stdout + result.stderr


def test_a_failing_step_says_why_keeps_its_log_and_leaves_nothing(tmp_path: Path) -> None:
    job = write_job(tmp_path, preparation={"cuts": {"momentum_min": 500.0}})
    store = tmp_path / "store"
    result = law_run(store, "TrainingJob", "--job", str(job))
    assert result.returncode == 40
    assert "[P404]" in result.stdout + result.stderr
    (log,) = (store / "PrepareDataset").glob("*.log")
    assert "[P404]" in log.read_text()
    assert [path for path in (store / "PrepareDataset").iterdir() if path.is_dir()] == []
    assert len(outputs(store, ["ProduceTracks"])["ProduceTracks"]) == 1


def test_other_branches_still_run_where_one_fails(tmp_path: Path) -> None:
    job = write_job(tmp_path, files=3, producer={"files_per_group": 1})
    (tmp_path / "input" / "tracks_002.root").write_bytes(b"not a ROOT file")
    store = tmp_path / "store"
    result = law_run(store, "TrainingJob", "--job", str(job))
    assert result.returncode == 40
    assert "[P401]" in result.stdout + result.stderr
    assert len(outputs(store, ["ProduceTracks"])["ProduceTracks"]) == 2


def test_a_job_may_do_without_some_files(tmp_path: Path) -> None:
    job = write_job(tmp_path, files=3)
    content = yaml.safe_load(job.read_text())
    content["dataset"]["require"] = 0.5
    job.write_text(yaml.safe_dump(content))
    (tmp_path / "input" / "tracks_002.root").unlink()
    result = law_run(tmp_path / "store", "PrepareDataset", "--job", str(job))
    assert result.returncode == 0, result.stderr
    (made,) = outputs(tmp_path / "store", ["PrepareDataset"])["PrepareDataset"]
    facts = json.loads((made / "provenance.json").read_text())["facts"]["inputs"]
    assert (facts["obtained"], facts["total"]) == (2, 3)
    content["dataset"]["require"] = 0.9
    job.write_text(yaml.safe_dump(content))
    result = law_run(tmp_path / "store", "PrepareDataset", "--job", str(job))
    assert result.returncode == 40
    assert "2 of 3 input files" in result.stdout + result.stderr


def test_a_server_that_is_away_counts_as_missing_and_is_asked_again_if_that_is_too_much(tmp_path: Path) -> None:
    job = write_job(tmp_path, files=2, producer={"files_per_group": 1})
    content = yaml.safe_load(job.read_text())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        away = f"http://127.0.0.1:{closed.getsockname()[1]}/tracks.root"
    content["dataset"] |= {"files": [*content["dataset"]["files"], away], "require": 0.5}
    job.write_text(yaml.safe_dump(content))
    store = tmp_path / "store"
    hasty = {"PIDML_FETCH_ATTEMPTS": "2", "PIDML_FETCH_BACKOFF": "0.1"}
    result = law_run(store, "PrepareDataset", "--job", str(job), **hasty)
    assert result.returncode == 0, result.stdout + result.stderr
    content["dataset"]["require"] = 0.9
    job.write_text(yaml.safe_dump(content))
    result = law_run(store, "PrepareDataset", "--job", str(job), **hasty)
    assert result.returncode == 40
    assert "[P300] 2 of 3 input files" in result.stdout + result.stderr
    assert len(outputs(store, ["DownloadAOD"])["DownloadAOD"]) == 2


@pytest.mark.slow
def test_kills_at_any_moment_lose_nothing_and_redo_nothing(tmp_path: Path) -> None:
    job = write_job(tmp_path, tracks=20_000)
    reference, store = tmp_path / "reference", tmp_path / "store"
    started = time.monotonic()
    assert law_run(reference, "TrainingJob", "--job", str(job)).returncode == 0
    whole = time.monotonic() - started  # a busy machine gets its kills later, not more of them

    rng = random.Random(int(os.environ.get("PIDML_SOAK_SEED", "1")))
    complete: dict[Path, str] = {}
    kills = 0
    for _ in range(40):
        process = law_start(store, "TrainingJob", "--job", str(job))
        try:
            process.wait(timeout=whole * rng.uniform(0.03, 0.4 + 0.05 * kills))
        except subprocess.TimeoutExpired:
            kills += 1
        kill_group(process)
        now = {
            path: (path / "provenance.json").read_text() for paths in outputs(store, NAMES).values() for path in paths
        }
        assert {path: now[path] for path in complete} == complete, "something complete was made again"
        complete = now
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 2
    for path in (reference / "PrepareDataset").glob("*/*/*.npy"):
        assert path.read_bytes() == (store / path.relative_to(reference)).read_bytes()
    assert {p.name for p in outputs(store, ["Train"])["Train"]} == {
        p.name for p in outputs(reference, ["Train"])["Train"]
    }
