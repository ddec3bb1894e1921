"""What a batch system costs beside the jobs; `benchmarks/farm.py` gives every figure in about six minutes.

With the tests' stand-in, whose jobs take no time: submission, a round of polling, and a rerun that has nothing to do,
over the number of branches (500, 1000 and 2000, or those given), and the exponents with which they grow; 1 is linear.
With real Slurm and HTCondor, where they can be had: time per branch from the submission until its output was seen,
beside that of as many jobs that do nothing, handed over and waited for with the scheduler's own commands.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]
from common import emit, median_seconds
from support.schedulers.daemons import Daemons, short_folder
from support.schedulers.htcondor_files import htcondor_prefix
from support.schedulers.real_htcondor import RealHTCondor
from support.schedulers.real_slurm import RealSlurm, install
from support.schedulers.standin import StandIn

from pidml.law_command import law_command, law_environment
from pidml.simulation.files import simulate_files

_SCRIPT = "#!/bin/sh\n#SBATCH --output=/dev/null\n#SBATCH --mem=1M\n#SBATCH --time=1\n#SBATCH --cpus-per-task=1\n"


def seconds_of(farm: StandIn, job: Path, store: Path, *options: str) -> float:
    """Run DownloadAOD on the stand-in to its end."""
    started = time.perf_counter()
    given = ["--job", str(job), "--workflow", "slurm", "--poll-interval", "0.02", *options]
    subprocess.run(
        law_command("DownloadAOD", given),
        env=law_environment(store) | farm.environment,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started


def bare_seconds(farm: StandIn, folder: Path, count: int) -> float:
    """Submit jobs with nothing but the scheduler's command, from four threads as law does."""
    script = folder / "noop.sh"
    script.write_text(_SCRIPT)
    command = [str(farm.folder / "bin" / "sbatch"), str(script)]
    started = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: subprocess.run(command, check=True, capture_output=True), range(count)))
    return time.perf_counter() - started


def polling_seconds(farm: StandIn) -> float:
    """Ask once about all jobs that the stand-in ever had; they have ended, so that the accounting is asked too."""
    from tasks.remote import RemoteWorkflow  # noqa: F401 - has law load what the next import needs
    from tasks.remote_manager import SlurmManager

    jobs, path = [job["id"] for job in farm.jobs()], os.environ["PATH"]
    os.environ["PATH"] = farm.environment["PATH"]
    try:
        return median_seconds(lambda: SlurmManager().query_batch(jobs), 3)
    finally:
        os.environ["PATH"] = path


def measure(branches: int) -> dict[str, float]:
    """Print the figures for one number of branches; return s by name."""
    with tempfile.TemporaryDirectory(prefix="pidml-farm-") as name:
        folder = Path(name)
        store = folder / "store"
        store.mkdir()
        files = [f"/alice/sim/2026/LHC26sandbox/0/1/AOD/{number:04d}/AO2D.root" for number in range(branches)]
        job = folder / "job.yaml"
        job.write_text(yaml.safe_dump({"dataset": {"files": files}}))
        farm = StandIn(folder / "spool", slots=branches)
        farm.instead = farm.publish
        with farm.running():
            whole = seconds_of(farm, job, store)
            again = seconds_of(farm, job, store)
            rounds = farm.calls("squeue")
        moments = [job["submitted"] for job in farm.jobs()]
        taken = {"submission": max(moments) - min(moments), "polling": polling_seconds(farm), "rerun": again}
    for name, seconds in taken.items():
        emit(f"farm.{name}", seconds, "s", branches=branches, per_branch_ms=round(seconds / branches * 1000, 2))
    emit("farm.whole", whole, "s", branches=branches, queries=rounds)
    return taken


def growth(counts: list[int]) -> None:
    """Print the figures, and the exponents with which they grow from the smallest to the largest number of branches."""
    with tempfile.TemporaryDirectory(prefix="pidml-farm-") as name:
        # without jobs that run meanwhile
        bare = bare_seconds(StandIn(Path(name) / "bare"), Path(name), min(counts))
    emit("farm.bare_submission", bare, "s", jobs=min(counts), per_job_ms=round(bare / min(counts) * 1000, 2))
    taken = {count: measure(count) for count in counts}
    low, high = min(counts), max(counts)
    if low == high:
        return
    for what in taken[low]:
        exponent = math.log(taken[high][what] / taken[low][what]) / math.log(high / low)
        emit(f"farm.{what}_exponent", exponent, "", smallest=low, largest=high)


def real(scheduler: Daemons, jobs: int = 20) -> None:
    """Print overhead per branch on a real scheduler, and the scheduler's own for jobs that do nothing."""
    with tempfile.TemporaryDirectory(prefix="pidml-farm-") as name:
        folder = Path(name)
        bare = noop_seconds(scheduler, folder, jobs)
        paths = simulate_files(folder / "input", 20 * jobs, jobs, "ao2d", 1, frames=1)
        job = folder / "job.yaml"
        asked = {"download": {"memory": 0.5, "disk": 0.1, "time": 0.5}}
        job.write_text(yaml.safe_dump({"dataset": {"files": [str(path) for path in paths]}, "resources": asked}))
        (folder / "store").mkdir()
        command = ["--job", str(job), "--workflow", scheduler.kind, "--poll-interval", "0.0085"]
        started = time.perf_counter()
        subprocess.run(
            law_command("DownloadAOD", command),
            env=law_environment(folder / "store") | scheduler.environment,
            check=True,
            capture_output=True,
        )
        whole = time.perf_counter() - started
        inside = sum(json.loads(path.read_text())["seconds"] for path in folder.glob("store/*/*/provenance.json"))
    emit(f"farm.{scheduler.kind}.noop", bare / jobs, "s/job", jobs=jobs, slots=2)
    emit(f"farm.{scheduler.kind}.overhead", (whole - bare) / jobs, "s/branch", jobs=jobs, slots=2)
    emit(f"farm.{scheduler.kind}.branch", whole / jobs, "s/branch", jobs=jobs, slots=2, step_seconds=round(inside, 2))


def noop_seconds(scheduler: Daemons, folder: Path, jobs: int) -> float:
    """Hand over jobs that do nothing, four at a time as law does, and wait until the last one has ended."""
    script = folder / "noop.sh"
    ends = folder / "ended"
    ends.mkdir()
    script.write_text(f"#!/bin/sh\n#SBATCH --output=/dev/null\n#SBATCH --mem=100M\nmktemp -p {ends} >/dev/null\n")
    script.chmod(0o755)
    given = script
    if scheduler.kind == "htcondor":
        given = folder / "noop.sub"
        given.write_text(f"executable = {script}\nrequest_memory = 100 MB\nrequest_disk = 1 MB\nqueue\n")
    started = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: scheduler.ask(scheduler.submits, str(given)), range(jobs)))
    scheduler.wait_for(lambda: len(list(ends.iterdir())) == jobs, seconds=600)
    return time.perf_counter() - started


def real_schedulers() -> None:
    """Measure on the real schedulers that this machine has or can fetch."""
    for kind, make, prepare in (("slurm", RealSlurm, install), ("htcondor", RealHTCondor, htcondor_prefix)):
        try:
            prepare()
            with short_folder("farm-") as folder, make(folder).running() as scheduler:
                real(scheduler)
        except pytest.skip.Exception as reason:
            print(f"{kind}: not measured: {reason}", file=sys.stderr)


if __name__ == "__main__":
    real_schedulers()
    growth([int(each) for each in sys.argv[1:]] or [500, 1000, 2000])
