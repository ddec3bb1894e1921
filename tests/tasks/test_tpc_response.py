"""The chain of TrainTPCResponse and Train, run by law from one job file."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime as ort
import pytest
from support.small_job import law_run, outputs, write_job

from pidml.tracks import FEATURES
from tasks.steps import owed_steps
from tasks.train import Train

STEPS = ("TrainTPCResponse", "Train", "ExportModel")


def deriving(folder: Path, **settings: object) -> Path:
    job = write_job(folder, tracks=9000, files=1, **settings)
    job.write_text(job.read_text().replace("dataset:\n", "dataset:\n  derive: [tpc_nsigma]\n"))
    return job


def test_a_job_has_the_step_only_if_it_derives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIDML_STORE", str(tmp_path / "store"))
    names = [step.__name__ for step in owed_steps(Train(job=str(deriving(tmp_path))))]
    assert names.index("TrainTPCResponse") == names.index("Train") - 1
    plain = [step.__name__ for step in owed_steps(Train(job=str(write_job(tmp_path / "plain", tracks=100, files=1))))]
    assert plain == [name for name in names if name != "TrainTPCResponse"]


@pytest.mark.slow
def test_the_chain_runs_and_only_what_reads_a_setting_runs_again(tmp_path: Path) -> None:
    response = {"epochs": 1, "species": ["pion", "kaon", "proton"]}
    job, store = deriving(tmp_path, response=response), tmp_path / "store"
    result = law_run(store, "ExportModel", "--job", str(job))
    assert result.returncode == 0, result.stdout + result.stderr
    made = {step: path for step, (path,) in outputs(store, STEPS).items()}
    provenance = json.loads((made["Train"] / "provenance.json").read_text())
    assert [each["task"] for each in provenance["inputs"]] == ["PrepareDataset", "TrainTPCResponse"]
    facts = json.loads((made["TrainTPCResponse"] / "provenance.json").read_text())["facts"]["response"]
    assert 0.5 < facts["width"]["pion"] < 1.5
    session = ort.InferenceSession(made["ExportModel"] / "pion.onnx")
    assert [each.shape for each in session.get_inputs()] == [["batch", len(FEATURES)]]

    content = job.read_text()
    job.write_text(content.replace("epochs: 1\n  species", "epochs: 2\n  species"))
    assert job.read_text() != content
    result = law_run(store, "ExportModel", "--job", str(job))
    assert result.returncode == 0, result.stdout + result.stderr
    counts = {step: len(paths) for step, paths in outputs(store, ("PrepareDataset", *STEPS)).items()}
    assert counts == {"PrepareDataset": 1, "TrainTPCResponse": 2, "Train": 2, "ExportModel": 2}
