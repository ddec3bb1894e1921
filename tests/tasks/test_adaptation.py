"""Domain adaptation as a job: experimental files go through the same steps, and nothing but the network comes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from support.small_job import law_run, outputs, write_job

from pidml.simulation import TableFormat, write_track_table
from pidml.simulation.distortion import EXPERIMENT
from pidml.store import Store, index_key


def write_data(path: Path, tree: str = "O2pidtracksdataml") -> Path:
    write_track_table(path, 3000, 99, frames=1, form=TableFormat(tree), distortion=EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small adapted job whose bundle is made: its file and its store."""
    folder = tmp_path_factory.mktemp("job")
    data = write_data(folder / "data.root")
    job = write_job(folder, files=1, adaptation={"method": "cdan", "files": [data.name], "hidden": [8]})
    result = law_run(folder / "store", "ExportModel", "--job", str(job))
    assert result.returncode == 0, result.stdout + result.stderr
    return job, folder / "store"


def test_experimental_files_are_prepared_with_the_settings_of_the_simulation(exported: tuple[Path, Path]) -> None:
    _, store = exported
    made = outputs(store, ["DownloadAOD", "ProduceTracks", "PrepareDataset", "Train"])
    assert {step: len(paths) for step, paths in made.items()} == {
        "DownloadAOD": 2, "ProduceTracks": 2, "PrepareDataset": 2, "Train": 1,
    }  # fmt: skip
    metas = {path: json.loads((path / "meta.json").read_text()) for path in made["PrepareDataset"]}
    data = {meta["simulation"]: meta for meta in metas.values()}
    assert data[True]["features"] == data[False]["features"]
    assert data[True]["momentum_limits"] == data[False]["momentum_limits"]
    assert not data[False]["likelihood_known"]
    provenance = json.loads((made["Train"][0] / "provenance.json").read_text())
    assert {each["digest"] for each in provenance["inputs"]} == {path.name for path in metas}
    adaptation = provenance["facts"]["training"]["adaptation"]
    assert adaptation["experimental_tracks"] == data[False]["tracks"]["train"]


def test_the_bundle_is_that_of_the_adapted_network(exported: tuple[Path, Path]) -> None:
    from pidml.data.prepared import PreparedDataset
    from pidml.training import load_classifier

    _, store = exported
    made = outputs(store, ["ExportModel", "Train", "PrepareDataset"])
    classifier = load_classifier(made["Train"])
    (data,) = [d for d in map(PreparedDataset.open, made["PrepareDataset"]) if not d.simulation]
    features = np.asarray(data.split("train").features)
    session = onnxruntime.InferenceSession(made["ExportModel"][0] / "pid.onnx")
    (certainty,) = session.run(None, {session.get_inputs()[0].name: classifier.scaling.apply(features)})
    np.testing.assert_allclose(certainty, classifier.predict(features), atol=1e-5)


def test_the_index_knows_the_experimental_samples(exported: tuple[Path, Path]) -> None:
    job, store = exported
    content = Store(store).index_content(index_key(str(job)))
    known = json.dumps(content)
    made = outputs(store, ["DownloadAOD", "ProduceTracks", "PrepareDataset"])
    assert all(f'"{path.name}"' in known for paths in made.values() for path in paths)


def test_a_job_about_the_experimental_files_finds_them_prepared(exported: tuple[Path, Path], tmp_path: Path) -> None:
    job, store = exported
    other = tmp_path / "data.yaml"
    other.write_text(yaml.safe_dump({"dataset": {"files": [str(job.parent / "data.root")], "simulation": False}}))
    result = law_run(store, "PrepareDataset", "--job", str(other))
    assert result.returncode == 0, result.stderr
    assert " started" not in result.stdout
    trained = law_run(store, "Train", "--job", str(other))
    assert trained.returncode == 40
    assert "[P605]" in trained.stdout + trained.stderr


def test_simulation_is_not_taken_for_experimental_data(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.root", "O2pidtracksmcml")
    job = write_job(tmp_path, files=1, adaptation={"method": "dann", "files": [str(data)]})
    result = law_run(tmp_path / "store", "PrepareDataset", "--job", str(job), "--source", "adaptation")
    assert result.returncode == 40
    assert "[P402]" in result.stdout + result.stderr
    assert "adaptation.files are" in result.stdout + result.stderr
