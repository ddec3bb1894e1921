"""Experiment folders: what `pidml init` writes parses and works at once, for every profile and every preset."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.small_job import write_job

from pidml.batch.site import profile_names, read_profile
from pidml.errors import ConfigError, UnknownJob
from pidml.experiment import create_experiment
from pidml.settings import Settings
from pidml.spec import JobSpec, load_job, parse_job, preset_names
from pidml.species import TARGET_NAMES


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    clean["PATH"] = f"{Path(sys.executable).parent}:{clean['PATH']}"
    return subprocess.run(
        command, cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("profile", profile_names())
def test_what_is_written_parses(tmp_path: Path, profile: str, preset: str) -> None:
    folder = create_experiment(tmp_path / "my experiment", profile, preset)
    job = load_job(str(folder / "job.yaml"))
    assert job == load_job(preset)
    made = read_profile(str(folder / "law.cfg"), {})
    assert made == read_profile(profile, {})
    assert made.name == profile
    settings = Settings.load({}, folder / ".env")
    assert settings.store == folder / "store"
    assert settings.site == str(folder / "law.cfg")
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    assert "set -euo pipefail" in (folder / "run.sh").read_text()
    assert subprocess.run(["bash", "-n", str(folder / "run.sh")], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("profile", profile_names())
def test_law_answers_at_once(tmp_path: Path, profile: str, preset: str) -> None:
    folder = create_experiment(tmp_path / "experiment", profile, preset)
    kind = read_profile(profile).workflow
    here = run("law", "run", "TrainingJob", "--job", "job.yaml", "--print-status", "-1", cwd=folder)
    elsewhere = run(str(folder / "run.sh"), "--print-status", "-1", cwd=tmp_path)
    for done in (here, elsewhere):
        assert done.returncode == 0, done.stdout + done.stderr
        assert "DownloadAOD" in done.stdout
        assert f"workflow={kind}" in done.stdout
    assert f"{folder}/store/Report" in elsewhere.stdout
    assert run(str(folder / "run.sh"), "pidml", "ls", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_the_commands_of_the_readme_do_what_it_says(tmp_path: Path) -> None:
    folder = create_experiment(tmp_path / "my experiment", "local", "sandbox")
    write_job(folder, tracks=2000)
    commands = [line.strip() for line in (folder / "README.md").read_text().splitlines() if line.startswith("   " * 2)]
    assert len(commands) == 4
    for command in commands:
        done = run("bash", "-c", command, cwd=folder)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert all((folder / "networks" / f"{name}.onnx").is_file() for name in TARGET_NAMES)


def test_a_folder_that_was_moved_says_what_to_do(tmp_path: Path) -> None:
    folder = create_experiment(tmp_path / "there", "local", "sandbox")
    moved = folder.rename(tmp_path / "here")
    done = run("./run.sh", "pidml", "ls", cwd=moved)
    assert done.returncode == 1
    assert f"[P900] this experiment was made at {folder} and lies at {moved} now" in done.stderr
    advice = next(part for part in done.stderr.split("; ") if "sed" in part).partition("moved: ")[2]
    assert run("bash", "-c", advice, cwd=tmp_path).returncode == 0
    assert (
        run("./run.sh", "pidml", "ls", cwd=moved).stdout
        == f"no job has run in {moved}/store yet: try `pidml run sandbox`\n"
    )
    (tmp_path / "link").symlink_to(moved / "run.sh")
    assert run(str(tmp_path / "link"), "pidml", "ls", cwd=tmp_path).returncode == 0
    text = (moved / "run.sh").read_text()
    for changed, said in (
        ("environment", "no Python environment with law"),
        ("configuration", "does not lie at"),
    ):
        (moved / "run.sh").write_text(re.sub(rf"(?m)^{changed}=.*", f"{changed}=/nowhere/x", text))
        done = run("./run.sh", "pidml", "ls", cwd=moved)
        assert done.returncode == 1
        assert said in done.stderr


def test_the_profile_of_a_moved_folder_is_named(tmp_path: Path) -> None:
    folder = create_experiment(tmp_path / "there", "slurm", "sandbox")
    moved = folder.rename(tmp_path / "here")
    with pytest.raises(ConfigError, match=r"there is no profile .*there/law\.cfg") as error:
        read_profile(Settings.load({}, moved / ".env").site)
    assert "moved" in error.value.hint


def test_every_commented_key_can_be_uncommented(tmp_path: Path) -> None:
    text = (create_experiment(tmp_path / "new", "local", "attention") / "job.yaml").read_text()
    head, _, body = text.partition("\n\n")
    assert all(line.startswith("# ") for line in head.splitlines())
    everything = "\n".join(line.removeprefix("# ") for line in body.splitlines())
    job = parse_job(yaml.safe_load(everything), "uncommented")
    assert job.model_dump(exclude={"dataset"}) == load_job("attention").model_dump(exclude={"dataset"})
    assert set(yaml.safe_load(everything)) == set(JobSpec.model_fields)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="is not empty"):
        create_experiment(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        create_experiment(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert create_experiment(tmp_path / "empty").is_dir()


@pytest.mark.parametrize("name", ["it's", "a$b", "a%b", "a,b", "a\nb", 'a"b', "a#b"])
def test_paths_that_configuration_files_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="the path holds"):
        create_experiment(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_unknown_profile_and_preset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no profile 'pbs'") as error:
        create_experiment(tmp_path / "new", "pbs")
    assert "farm, local, lxplus, slurm" in error.value.hint
    with pytest.raises(UnknownJob, match="no preset is called"):
        create_experiment(tmp_path / "new", "local", "../../etc/passwd")
    done = run("pidml", "init", str(tmp_path / "new"), "--profile", "pbs", cwd=tmp_path)
    assert done.returncode == 1
    assert "no profile 'pbs'" in done.stderr
    assert "Traceback" not in done.stderr
