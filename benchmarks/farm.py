"""What a batch system costs beside the jobs.

With the tests' stand-in, whose jobs take no time: submission, polling and a no-op rerun over the number of branches
(500, 1000 and 2000, or those given), and how they grow; 1 is linear. With real Slurm and HTCondor, where they can be
had: time per branch from the submission until its output was seen, beside that of as many jobs that do nothing, handed
over and waited for with the scheduler's own commands.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]
from common import emit
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
    given = ["--job", str(job), "--workflow", "slurm", "--poll-interval", "0.1", *options]
    subprocess.run(
        law_command("DownloadAOD", given),
        env=law_environment(store) | farm.environment,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started


def bare_seconds(farm: StandIn, folder: Path, count: int) -> float:
    """Submit as many jobs with nothing but the scheduler's command, from four threads as law does."""
    script = folder / "noop.sh"
    script.write_text(_SCRIPT)
    command = [str(farm.folder / "bin" / "sbatch"), str(script)]
    started = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: subprocess.run(command, check=True, capture_output=True), range(count)))
    return time.perf_counter() - started


def measure(branches: int) -> tuple[float, float]:
    """Print the figures for one number of branches; return s of the run and of the rerun."""
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
        # a second one, without jobs that run meanwhile
        bare = bare_seconds(StandIn(folder / "bare"), folder, branches)
        queries = farm.calls("squeue")
    emit("farm.submit_and_collect", whole / branches * 1000, "ms/branch", branches=branches, seconds=round(whole, 1))
    emit("farm.bare_submission", bare / branches * 1000, "ms/job", branches=branches, seconds=round(bare, 1))
    emit("farm.rerun", again, "s", branches=branches)
    emit("farm.queries", queries, "", branches=branches)
    return whole, again


def growth(counts: list[int]) -> None:
    """Print the exponents with which run and rerun grow from the smallest to the largest number of branches."""
    taken = {count: measure(count) for count in counts}
    low, high = min(counts), max(counts)
    if low == high:
        return
    for place, name in enumerate(("submit_and_collect", "rerun")):
        exponent = math.log(taken[high][place] / taken[low][place]) / math.log(high / low)
        emit(f"farm.{name}_exponent", exponent, "", smallest=low, largest=high)


def real(scheduler: Daemons, jobs: int = 20) -> None:
    """Print overhead per branch on a real scheduler, and the scheduler's own for jobs that do nothing."""
    with tempfile.TemporaryDirectory(prefix="pidml-farm-") as name:
        folder = Path(name)
        bare = noop_seconds(scheduler, folder, jobs)
        paths = simulate_files(folder / "input", 20 * jobs, jobs, "ao2d", 1, frames=1)
        job = folder / "job.yaml"
        job.write_text(yaml.safe_dump({"dataset": {"files": [str(path) for path in paths]}}))
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
