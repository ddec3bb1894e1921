"""What a batch system costs beside the jobs: submission, polling and a no-op rerun over the number of branches.

The scheduler is the stand-in of the tests, whose jobs take no time, so what is measured is law, this package and the
starts of commands. ``python benchmarks/farm.py [BRANCHES …]`` (500, 1000 and 2000).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]
from common import emit
from support.schedulers.standin import StandIn

from pidml.law_command import law_command, law_environment

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


def measure(branches: int) -> None:
    """Print the figures for one number of branches."""
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


if __name__ == "__main__":
    for count in [int(each) for each in sys.argv[1:]] or [500, 1000, 2000]:
        measure(count)
