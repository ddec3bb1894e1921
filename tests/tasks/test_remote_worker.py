"""What happens on a worker: the bootstrap says what is wrong there, and a job makes its own branch only."""

from __future__ import annotations

import base64
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.small_job import law_run

from pidml import resources
from pidml.law_command import law_command, law_environment


def bootstrap(tmp_path: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the bootstrap script as law's job script does: sourced, with its placeholders filled in."""
    (tmp_path / "visible").touch()
    values = {
        "pidml_environment": f"export PIDML_STORE={tmp_path}\nexport PIDML_GRID=sandbox",
        "pidml_setup": "",
        "pidml_python": sys.executable,
        "pidml_root": str(resources.ROOT),
        "pidml_marker": "visible",
        "pidml_version": platform.python_version(),
        "pidml_modules": "law,numpy",
    } | changes
    text = (resources.scripts() / "bootstrap.sh").read_text()
    for key, value in values.items():
        encoded = base64.b64encode(value.encode()).decode() if key in ("pidml_environment", "pidml_setup") else value
        text = text.replace(f"{{{{{key}}}}}", encoded)
    assert "{{" not in text
    script = tmp_path / "bootstrap.sh"
    script.write_text(text)
    show = 'source "$1"; code=$?; echo "$PIDML_GRID $(command -v python) $LAW_HOME"; exit $code'
    return subprocess.run(
        ["bash", "-c", show, "bash", str(script)],
        env={"PATH": "/usr/bin:/bin", "LAW_JOB_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_good_worker(tmp_path: Path) -> None:
    done = bootstrap(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["sandbox", str(Path(sys.executable).parent / "python"), f"{tmp_path}/home/.law"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pidml_marker": "elsewhere"}, "does not see the store"),
        ({"pidml_python": "/nowhere/bin/python"}, "has no /nowhere/bin/python"),
        ({"pidml_version": "3.9.1"}, "jobs were submitted with 3.9.1"),
        ({"pidml_modules": "law,no_such_package"}, "Python packages are missing: no_such_package"),
        ({"pidml_setup": "source /nowhere/setup.sh"}, "the commands of `setup` in the profile failed"),
    ],
)
def test_a_worker_that_cannot_do_the_job_says_why(tmp_path: Path, changes: dict[str, str], text: str) -> None:
    done = bootstrap(tmp_path, **changes)
    assert done.returncode != 0
    telling = [line for line in done.stderr.splitlines() if line.startswith("pidml: ")]
    assert len(telling) == 1
    assert text in telling[0]


def test_on_a_worker_requirements_are_checked_and_never_made(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump({"dataset": {"files": ["/alice/sim/2026/LHC26sandbox/0/1/AOD/001/AO2D.root"]}}))
    store = tmp_path / "store"
    store.mkdir()
    done = subprocess.run(
        law_command("ProduceTracks", ["--job", str(job), "--branch", "0"]),
        env=law_environment(store) | {"LAW_JOB_HOME": str(tmp_path), "PIDML_SITE": "slurm"},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode not in (0, None)
    assert "not complete as seen from" in done.stdout + done.stderr
    assert "DownloadAOD" in done.stdout + done.stderr
    assert not (store / "DownloadAOD").exists()


def test_looking_at_the_status_makes_no_folders(tmp_path: Path) -> None:
    done = law_run(tmp_path / "store", "DownloadAOD", "--job", "sandbox", "--workflow", "slurm", "--print-status", "0")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "store").glob("DownloadAOD"))


def test_without_a_scheduler_nothing_is_submitted(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    bare = {key: value for key, value in law_environment(store).items() if key != "PATH"}
    done = subprocess.run(
        law_command("DownloadAOD", ["--job", "sandbox", "--workflow", "htcondor"]),
        env=bare | {"PATH": "/nowhere"}, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 50, done.stderr
    absent = "condor_submit, condor_q, condor_history, condor_rm"
    assert f"[P901] DownloadAOD: HTCondor: not found on this machine: {absent}" in done.stderr
    assert not list(store.glob("DownloadAOD/*.work/*.json*"))
    assert "Traceback" not in done.stdout + done.stderr
