"""What the poller costs per job: 200 jobs of the smallest size through one poller against the embedded server.

A job here is a process that says when it ran and ends. Measured are the time from the server's assignment to the job's
first instruction (claim, durable write, guard, start), the time from the job's end to Completed on the server, and what
the poller's memory grows by. Another figure is the time that law itself needs to start and make the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from common import emit

from pidml.errors import PidmlError
from pidml.law_command import law_command, law_environment
from pidml.server.store import ServerStore
from pidml.simulation.files import simulate_files

JOBS = 200
LFN = "/alice/sim/2026/LHC26sandbox/0/1/AOD/001/AO2D.root"
#: Jobs that pass before memory is looked at: modules are loaded, connections made.
WARM_UP = 20
#: The poller in a process of its own; prints its resident memory (B) at the start of each job.
POLLER = """
import json, resource, sys
from pidml.poller.loop import poll
from pidml.settings import Settings
memory = []
def command(job):
    with open('/proc/self/statm') as stream:
        memory.append(int(stream.read().split()[1]) * resource.getpagesize())
    return [sys.executable, '-I', '-S', '-c', 'import time; print("at", time.time())']
counts = poll(Settings.load(dotenv=None), drain=True, command=command)
print(json.dumps({'memory': memory, 'completed': counts.completed}))
"""


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run the embedded server as a process; yields its address."""
    command = [sys.executable, "-m", "pidml.server", "--data-dir", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise PidmlError("the embedded server did not start", "its message is above")
            yield url
        finally:
            process.terminate()


def run_poller(folder: Path, jobs: int) -> tuple[float, dict[str, Any], list[float], list[float]]:
    """Queue jobs and run the poller until none is left.

    Returns:
        Seconds in all, what the poller printed, and per job the seconds from claim to start and from end to Completed.
    """
    with server(folder / "server") as url, ServerStore(folder / "server") as store:
        machine = store.register_machine("benchmark")
        tasks = [store.queue_task(f"job {number}", [{"Path": LFN}], {}) for number in range(jobs)]
        environment = {
            "ALICETRAINT_BASE_URL": url,
            "MACHINE_ID": str(machine.id),
            "MACHINE_SECRET_KEY": machine.secret,
            "PIDML_STORE": str(folder / "store"),
            "PIDML_MIN_FREE_GB": "0",
        }
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", POLLER], env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
        )
        seconds = time.perf_counter() - begin
        before, after = [], []
        for task in tasks:
            moments = {change.status.name: change.moment for change in store.history(task)}
            log = (folder / "store" / "jobs" / str(task) / "law.log").read_text(encoding="utf-8")
            ran = float(log.rpartition("at ")[2])
            before.append(ran - moments["TRAINING"])
            after.append(moments["COMPLETED"] - ran)
    return seconds, json.loads(done.stdout.splitlines()[-1]), before, after


def law_first_step(folder: Path) -> float:
    """Return the seconds from the start of ``law run`` until the first step of a job is made."""
    job = folder / "job.yaml"
    files = simulate_files(folder / "input", 1000, 1, "tracks")
    job.write_text(yaml.safe_dump({"dataset": {"files": [str(path) for path in files]}}), encoding="utf-8")
    begin = time.time()
    command = law_command("FetchJob", ["--job", str(job)])
    subprocess.run(command, env=law_environment(folder / "law"), capture_output=True, check=True)
    [log] = (folder / "law" / "FetchJob").glob("*.log")
    return log.stat().st_ctime - begin


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=JOBS, help="queued jobs (default: %(default)s)")
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, told, before, after = run_poller(folder, jobs)
        start = law_first_step(folder)
    if told["completed"] != jobs:
        raise PidmlError(f"{told['completed']} of {jobs} jobs were completed", "the poller's messages are above")
    emit("poller.claim_to_start", statistics.median(before), "s", jobs=jobs, largest=round(max(before), 4))
    emit("poller.end_to_completed", statistics.median(after), "s", jobs=jobs, largest=round(max(after), 4))
    emit("poller.law_first_step", start, "s")
    emit("poller.per_job", seconds / jobs, "s", jobs=jobs)
    memory = told["memory"]
    if jobs > WARM_UP:
        emit("poller.memory_growth", (memory[-1] - memory[WARM_UP]) / 2**20, "MiB", jobs=jobs - WARM_UP)
    emit("poller.memory", max(memory) / 2**20, "MiB", jobs=jobs)


if __name__ == "__main__":
    main()
