"""CompareModels: which jobs, where the result lies, and a whole comparison through the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.small_job import law_run, outputs, python, write_job

from pidml.errors import SpecError
from pidml.gc import find_garbage
from pidml.store import Store, comparison_key, short_names
from pipelines import CompareModels
from tasks import ExportModel


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two job files over the same input, with different networks."""
    monkeypatch.setenv("PIDML_STORE", str(tmp_path / "store"))
    return write_pair(tmp_path, tracks=3000)


def write_pair(folder: Path, tracks: int, **settings: Any) -> list[str]:
    first = write_job(folder, tracks=tracks, **settings)
    content = yaml.safe_load(first.read_text())
    content["model"] = {"architecture": "mlp", "hidden": [8]}
    second = folder / "mlp.yaml"
    second.write_text(yaml.safe_dump(content))
    return [str(first), str(second)]


def test_the_address_is_that_of_the_compared_networks_in_their_order(jobs: list[str]) -> None:
    address = CompareModels(jobs=",".join(jobs)).digest
    assert CompareModels(jobs=f" {jobs[0]} , {jobs[1]},").digest == address
    assert CompareModels(jobs=",".join(reversed(jobs))).digest != address
    second = Path(jobs[1])
    content = yaml.safe_load(second.read_text())
    renamed = second.with_name("renamed.yaml")
    renamed.write_text(yaml.safe_dump(content))
    assert ExportModel(job=str(renamed)).digest == ExportModel(job=jobs[1]).digest
    assert CompareModels(jobs=f"{jobs[0]},{renamed}").digest != address, "names are shown"


@pytest.mark.parametrize(
    ("which", "change", "same"),
    [
        (1, {"evaluation": {"nsigma": 2.0}}, True),
        (0, {"evaluation": {"nsigma": 2.0}}, False),
        (1, {"model": {"architecture": "mlp", "hidden": [9]}}, False),
        (1, {"name": "another"}, True),
    ],
)
def test_what_changes_the_address(jobs: list[str], which: int, change: dict[str, Any], same: bool) -> None:
    address = CompareModels(jobs=",".join(jobs)).digest
    path = Path(jobs[which])
    other = path.with_name("other") / path.name
    other.parent.mkdir()
    other.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    changed = [str(other) if place == which else job for place, job in enumerate(jobs)]
    assert (CompareModels(jobs=",".join(changed)).digest == address) == same


@pytest.mark.parametrize("given", ["", "masked-mlp", "masked-mlp,masked-mlp", ",".join(f"j{n}.yaml" for n in range(9))])
def test_too_few_too_many_or_equal_jobs_are_refused(given: str) -> None:
    with pytest.raises(SpecError, match="2 to 8 different jobs"):
        CompareModels(jobs=given).upstream()


def test_names_are_short_and_differ() -> None:
    given = ["a/new.yaml", "b/new.yaml", "c/new.json", "12", "masked-mlp", "v1.2.yaml"]
    assert short_names(given) == ["new", "new-2", "new-3", "task-12", "masked-mlp", "v1.2"]
    assert comparison_key(given[:2]) != comparison_key(given[1::-1])
    assert len(comparison_key(["x" * 90 + f"{n}.yaml" for n in range(8)])) < 150


def test_a_wrong_job_is_named_on_the_command_line(jobs: list[str]) -> None:
    result = python("-m", "pidml", "compare", jobs[0], "no-such-preset")
    assert result.returncode == 1
    assert "no preset is called 'no-such-preset'" in result.stderr


@pytest.mark.slow
def test_a_whole_comparison_and_a_report_with_feature_importance(tmp_path: Path) -> None:
    evaluation = {"pt_edges": [0.0, 0.5, 1.0, 5.0], "explain": True, "explain_tracks": 200}
    jobs = write_pair(tmp_path, tracks=6000, evaluation=evaluation)
    store = tmp_path / "store"
    result = python("-m", "pidml", "compare", *jobs, env=os.environ | {"PIDML_STORE": str(store)}, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    made = outputs(store, ["PrepareDataset", "Train", "ExportModel", "CompareModels", "Benchmark"])
    assert [len(made[step]) for step in made] == [1, 2, 2, 1, 0]
    (folder,) = made["CompareModels"]
    record = json.loads((folder / "comparison.json").read_text())
    assert [model["name"] for model in record["models"]] == ["job", "mlp"]
    assert "antiproton" in result.stdout
    assert str(folder / "comparison.html") in result.stdout
    assert Store(store).read_index(comparison_key(jobs)) == {"CompareModels": [folder.name]}
    assert [each.path for each in find_garbage(Store(store), min_age=0) if folder.name in str(each.path)] == []

    result = law_run(store, "TrainingJob", "--job", jobs[0])
    assert result.returncode == 0, result.stdout + result.stderr
    (explained,) = outputs(store, ["ExplainModel"])["ExplainModel"]
    assert (explained / "shapley.npy").is_file()
    (report,) = outputs(store, ["Report"])["Report"]
    assert '<section id="explanation">' in (report / "report.html").read_text()
    assert len(outputs(store, ["Train"])["Train"]) == 2, "nothing was trained again"
