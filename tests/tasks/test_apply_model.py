"""ApplyModel through law: a branch per file, here and on batch systems, with a bundle at hand or a whole job."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import uproot
from support.schedulers.standin import StandIn
from support.small_bundle import make_bundle
from support.small_job import law_run, outputs, write_job

from pidml.apply import read_provenance
from pidml.export import Bundle
from pidml.simulation.files import simulate_files
from tasks.apply import ApplyModel


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A track table and an AO2D file."""
    folder = tmp_path_factory.mktemp("files")
    return [simulate_files(folder / fmt, 600, 1, fmt, 4, frames=2)[0] for fmt in ("tracks", "ao2d")]  # type: ignore[arg-type]


def apply(store: Path, files: list[Path], *options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return law_run(store, "ApplyModel", "--files", ",".join(map(str, files)), *map(str, options), **environment)


def made(store: Path) -> dict[str, Path]:
    """Input file → folder with its scores."""
    found = outputs(store, ["ApplyModel"])["ApplyModel"]
    return {json.loads((path / "provenance.json").read_text())["facts"]["file"]: path for path in found}


def scores(folder: Path) -> dict[str, np.ndarray]:
    with uproot.open(folder / "scores.root") as file:
        return dict(file["pidscores"].arrays(library="np"))


def test_a_bundle_is_applied_file_by_file_and_once(bundle: Path, files: list[Path], tmp_path: Path) -> None:
    done = apply(tmp_path / "store", files, "--bundle", bundle, "--threshold", "kaon=0")
    assert done.returncode == 0, done.stdout + done.stderr
    folders = made(tmp_path / "store")
    assert set(folders) == set(map(str, files))
    with uproot.open(files[0]) as file:
        given = [file[f"DF_{frame}/O2pidtracksmcml"].arrays(library="np") for frame in (1, 2)]
    columns = {name: np.concatenate([part[name] for part in given]) for name in given[0]}
    expected = Bundle.open(bundle, threads=1).predict_columns(columns)
    found = scores(folders[str(files[0])])
    np.testing.assert_allclose(found["fMlCertPion"], expected[:, 0], atol=1e-6)
    assert found["fMlAcceptedKaon"].all()
    assert len(scores(folders[str(files[1])])["fP"]) > 600
    for path, folder in folders.items():
        summary = json.loads((folder / "provenance.json").read_text())["facts"]["apply"]
        assert summary == read_provenance(folder / "scores.root")["summary"]
        log = folder.with_suffix(".log").read_text()
        assert f"{summary['accepted']['kaon']:,} of {summary['tracks']:,} tracks accepted" in log
        assert f"{path} → {folder / 'scores.root'}" in log
    # the same bundle from another place, and the files in another order: nothing is made anew
    shutil.copytree(bundle, tmp_path / "elsewhere")
    again = apply(tmp_path / "store", files[::-1], "--bundle", tmp_path / "elsewhere", "--threshold", "kaon=0.0")
    assert again.returncode == 0
    assert made(tmp_path / "store") == folders
    assert not (tmp_path / "store" / "index").exists()


def test_relative_paths_are_those_of_the_caller(bundle: Path, files: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for name, path in (("bundle", bundle), ("tracks.root", files[0])):
        (store / name).symlink_to(path)
    done = apply(store, [Path("tracks.root")], "--bundle", "bundle", "--format", "parquet")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(made(store)) == {str(store / "tracks.root")}
    assert len(list(store.glob("ApplyModel/*/scores.parquet"))) == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--files", "{tmp}/absent.root", "--bundle", "{bundle}"], 40, "[P301]"),
        (["--files", "{file}", "--bundle", "{tmp}/none"], 50, "[P701]"),
        (["--bundle", "{bundle}"], 50, "[P100]"),
        (["--files", "{file}"], 50, "which job?"),
        (["--files", "{file}", "--bundle", "{bundle}", "--threshold", "kaon"], 50, "not SPECIES=CERTAINTY"),
    ],
    ids=["no file", "no bundle", "no files", "no job", "no threshold"],
)
def test_what_is_wrong_is_said(
    bundle: Path, files: list[Path], tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    given = [option.format(tmp=tmp_path, bundle=bundle, file=files[0]) for option in options]
    done = law_run(tmp_path / "store", "ApplyModel", *given)
    assert said in done.stdout + done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr
    assert not made(tmp_path / "store")


def test_identity_covers_what_decides_the_scores(bundle: Path, files: list[Path]) -> None:
    def digest(**options: object) -> str:
        return str(ApplyModel(**{"files": (str(files[0]),), "bundle": str(bundle), "branch": 0} | options).digest)

    assert digest() == digest(threshold=()) == digest(files=(str(files[0]), str(files[1])))
    others = [digest(format="parquet"), digest(threshold=("kaon=0.5",)), digest(files=(str(files[1]),))]
    assert len({digest(), *others}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slurm", "htcondor"])
def test_on_a_batch_system_it_is_the_same(bundle: Path, files: list[Path], tmp_path: Path, kind: str) -> None:
    scheduler = StandIn(tmp_path / "spool")
    with scheduler.running():
        options = ("--bundle", bundle, "--workflow", kind, "--poll-interval", "0.005", "--threshold", "kaon=0.25")
        done = apply(tmp_path / "store", files, *options, **scheduler.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(scheduler.jobs()) == 2
    here = apply(tmp_path / "here", files, "--bundle", bundle, "--threshold", "kaon=0.25")
    assert here.returncode == 0, here.stdout + here.stderr
    there, expected = made(tmp_path / "store"), made(tmp_path / "here")
    for path in map(str, files):
        assert there[path].name == expected[path].name
        found, wanted = scores(there[path]), scores(expected[path])
        assert list(found) == list(wanted)
        np.testing.assert_allclose(found["fMlCertKaon"], wanted["fMlCertKaon"], atol=1e-6)
        np.testing.assert_array_equal(found["fRow"], wanted["fRow"])


@pytest.mark.slow
def test_a_jobs_networks_are_made_first_and_its_index_stays(files: list[Path], tmp_path: Path) -> None:
    job = write_job(tmp_path)
    store = tmp_path / "store"
    done = apply(store, [files[1]], "--job", job)
    assert done.returncode == 0, done.stdout + done.stderr
    (networks,) = outputs(store, ["ExportModel"])["ExportModel"]
    (folder,) = made(store).values()
    assert read_provenance(folder / "scores.root")["bundle"]["path"] == str(networks)
    inputs = json.loads((folder / "provenance.json").read_text())["inputs"]
    assert inputs == [{"task": "ExportModel", "digest": networks.name}]
    before = folder.stat().st_mtime_ns
    assert apply(store, [files[1]], "--job", job).returncode == 0
    assert folder.stat().st_mtime_ns == before
    (index,) = (store / "index").glob("*.json")
    assert ["ExportModel", [networks.name]] in json.loads(index.read_text())["steps"]
