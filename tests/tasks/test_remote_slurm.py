"""Steps on a real Slurm of one node with accounting."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.schedulers.real_slurm import RealSlurm, install
from support.small_job import kill_group, write_job

from pidml.law_command import law_command, law_environment

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]


@pytest.fixture(scope="module")
def slurm() -> Iterator[RealSlurm]:
    install()
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets need a short path
    try:
        with RealSlurm(folder).running() as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Runs:
    """law runs with Slurm at hand."""

    def __init__(self, slurm: RealSlurm, folder: Path) -> None:
        self.slurm = slurm
        self.folder = folder

    def environment(self, store: Path, **extra: str) -> dict[str, str]:
        store.mkdir(exist_ok=True)
        return law_environment(store) | self.slurm.environment | extra

    def run(self, store: Path, task: str, *options: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            law_command(task, options), env=self.environment(store, **extra), cwd=self.folder, capture_output=True,
            stdin=subprocess.DEVNULL, text=True, timeout=100, check=False,
        )  # fmt: skip

    def start(self, store: Path, task: str, *options: str) -> subprocess.Popen[bytes]:
        with (self.folder / "law.out").open("ab") as out:
            return subprocess.Popen(
                law_command(task, options), env=self.environment(store), cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def states(self, store: Path) -> list[tuple[str, str]]:
        """(name, state) of the jobs of a store's workflows, from the accounting."""
        digests = [path.name.removesuffix(".work") for path in store.glob("*/*.work")]
        out = self.slurm.ask("sacct", "-X", "-n", "-P", "--starttime=now-1hour", "--format=JobName,State") or ""
        rows = [tuple(line.split("|")) for line in out.splitlines()]
        return [(name, state.split()[0]) for name, state in rows if any(digest in name for digest in digests)]

    def slurm_processes(self) -> list[int]:
        """Processes of jobs that run now; the first is a job's script."""
        lines = (self.slurm.ask("scontrol", "listpids") or "").splitlines()
        return [int(words[0]) for line in lines if (words := line.split()) and words[0].isdigit()]

    def submissions(self, store: Path) -> Counter[str]:
        """Step and branch → how often a job was submitted."""
        return Counter("-".join(name.split("-")[1:3]) for name, _ in self.states(store))


@pytest.fixture
def runs(slurm: RealSlurm, tmp_path: Path) -> Runs:
    return Runs(slurm, tmp_path)


def test_prepared_data_are_the_same_as_without_slurm(runs: Runs, tmp_path: Path) -> None:
    job = write_job(tmp_path, tracks=4000, files=2, fmt="ao2d", producer={"files_per_group": 1})
    local, remote = tmp_path / "local", tmp_path / "remote"
    assert runs.run(local, "PrepareDataset", "--job", "job.yaml").returncode == 0
    done = runs.run(remote, "PrepareDataset", "--job", str(job), PIDML_SITE="slurm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs.submissions(remote) == {
        "DownloadAOD-0": 1,
        "DownloadAOD-1": 1,
        "ProduceTracks-0": 1,
        "ProduceTracks-1": 1,
    }
    arrays = sorted(path.relative_to(local) for path in local.glob("PrepareDataset/*/**/*.npy"))
    assert len(arrays) == 9
    for path in arrays:
        assert (local / path).read_bytes() == (remote / path).read_bytes(), path
    log = next(remote.glob("ProduceTracks/*.job.log")).read_text()
    assert "task exit code: 0" in log


def test_memory_is_raised_after_slurm_killed_a_job_for_it(runs: Runs, tmp_path: Path) -> None:
    write_job(tmp_path, tracks=500, files=1, fmt="ao2d", resources={"download": {"memory": 0.02}})
    store = tmp_path / "store"
    given = ["--job", "job.yaml", "--workflow", "slurm", "--poll-interval", "0.02", "--retries", "5"]
    done = runs.run(store, "DownloadAOD", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = (runs.slurm.ask("sacct", "-X", "-n", "-P", "--format=JobName,ReqMem") or "").splitlines()
    names = {name for name, _ in runs.states(store)}
    memory = [row.split("|")[1] for row in asked if row.split("|")[0] in names]
    assert len(memory) >= 2
    assert memory == [f"{20 * 2**attempt}M" for attempt in range(len(memory))]
    assert "killed for its memory" in done.stdout
    assert runs.states(store)[-1][1] == "COMPLETED"


def test_killed_worker_and_killed_submitter(runs: Runs, tmp_path: Path) -> None:
    write_job(tmp_path, tracks=2000, files=4, fmt="ao2d")
    store = tmp_path / "store"
    given = ["--job", "job.yaml", "--workflow", "slurm", "--poll-interval", "0.02"]
    process = runs.start(store, "DownloadAOD", *given)
    try:
        runs.slurm.wait_for(lambda: bool(runs.slurm_processes()))
        kill_group(process)
        os.kill(runs.slurm_processes()[0], signal.SIGKILL)
        done = runs.run(store, "DownloadAOD", *given)
    finally:
        kill_group(process)
    assert done.returncode == 0, done.stdout + done.stderr
    submitted = runs.submissions(store)
    assert len(submitted) == 4
    assert sum(submitted.values()) <= 5, "only what was killed is submitted again"
    failed = [name for name, state in runs.states(store) if state == "FAILED"]
    assert all(submitted["-".join(name.split("-")[1:3])] == 2 for name in failed)


def test_cancelled_by_a_person(runs: Runs, tmp_path: Path) -> None:
    write_job(tmp_path, tracks=500, files=1, fmt="ao2d", resources={"download": {"cores": 2}})
    store = tmp_path / "store"
    busy = runs.slurm.ask("sbatch", "--parsable", "--exclusive", "--output=/dev/null", "--wrap", "sleep 200") or ""
    process = runs.start(store, "DownloadAOD", "--job", "job.yaml", "--workflow", "slurm", "--poll-interval", "0.02")
    try:
        runs.slurm.wait_for(lambda: bool(runs.states(store)))
        runs.slurm.ask("scancel", f"--name={runs.states(store)[0][0]}")
        assert process.wait(timeout=60) == 40
    finally:
        kill_group(process)
        runs.slurm.ask("scancel", busy.strip())
    assert "branch 0: CANCELLED" in (tmp_path / "law.out").read_text()
    assert len(runs.states(store)) == 1


@pytest.mark.parametrize(
    ("settings", "environment", "text"),
    [
        ({}, {"PIDML_PARTITION": "nowhere"}, "Slurm has no partition 'nowhere'"),
        ({"time": 1}, {"PIDML_PARTITION": "short"}, "jobs ask for 1 h, partition short allows 0.5 h"),
        ({"gpus": 7}, {}, "Requested node configuration is not available"),
        ({"cores": 1000}, {}, "can never start: PartitionConfig"),
    ],
)
def test_what_slurm_cannot_grant_is_said_at_once(
    runs: Runs, tmp_path: Path, settings: dict[str, float], environment: dict[str, str], text: str
) -> None:
    write_job(tmp_path, tracks=500, files=1, fmt="ao2d", resources={"download": settings})
    done = runs.run(tmp_path / "store", "DownloadAOD", "--job", "job.yaml", PIDML_SITE="slurm", **environment)
    assert done.returncode == 40
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not [state for _, state in runs.states(tmp_path / "store") if state in ("PENDING", "RUNNING")]
