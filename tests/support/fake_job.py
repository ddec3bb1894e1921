"""Stands in for `law run TrainingJob`: steps that resume, uploads and statuses through the real library functions.

python fake_job.py, told by the environment: PIDML_JOB_DIR and the machine's settings as for a real job, and FAKE_JOB,
a JSON object:

steps     how many steps (default 3)
seconds   how long each computes (default 0)
exit      exit code at the end instead of 0
failure   content of failure.json, written before that
fail_runs only the first so many runs fail
fork      leave processes behind: "group" in the same group, "session" in sessions of their own
ignore    ignore SIGTERM
print     a text to print
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pidml.alicetraint.client import AliceTraINTClient
from pidml.alicetraint.jobs import JobDirectory, stop_requested, write_progress
from pidml.alicetraint.outbox import report_status, upload_files
from pidml.alicetraint.receipts import Upload
from pidml.atomic import atomic_directory
from pidml.server.protocol import FileType, TaskStatus
from pidml.settings import Settings

SPECIES = ("pion", "kaon", "proton", "antipion", "antikaon", "antiproton")


def output_of(store: Path, task_id: int, step: int) -> Path:
    return store / "FakeStep" / f"{task_id}-{step}"


def expected_results(task_id: int, steps: int = 3) -> set[tuple[str, str]]:
    """Return (name, content) of every result that a complete job has on the server."""
    found = {(f"step{step}.log", f"log of step {step} of task {task_id}\n") for step in range(steps)}
    return found | {(f"{species}.onnx", f"network {species} of task {task_id}\n") for species in SPECIES}


def run_step(store: Path, job: JobDirectory, step: int, seconds: float) -> Path:
    output = output_of(store, job.task_id, step)
    if not output.exists():
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            write_progress(job.path, f"step{step}", deadline - time.monotonic(), seconds)
            if stop_requested(job.path):
                sys.exit(75)
            time.sleep(min(0.05, seconds))
        with atomic_directory(output) as folder:
            (folder / f"step{step}.log").write_text(f"log of step {step} of task {job.task_id}\n")
            for species in SPECIES:
                (folder / f"{species}.onnx").write_text(f"network {species} of task {job.task_id}\n")
        # Written after the output is complete: a second line for one step means that something complete was made again.
        with (store / "computed.log").open("a") as log:
            log.write(f"{job.task_id} {step}\n")
    return output


def leave_processes(kind: str) -> None:
    sleeper = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    subprocess.Popen(sleeper, start_new_session=kind == "session")


def main() -> int:
    plan = json.loads(os.environ.get("FAKE_JOB", "{}"))
    settings = Settings.load(dotenv=None)
    job = JobDirectory(Path(os.environ["PIDML_JOB_DIR"]))
    if plan.get("ignore"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if plan.get("fork"):
        leave_processes(plan["fork"])
    print(plan.get("print", f"task {job.task_id} runs"), flush=True)
    steps = plan.get("steps", 3)
    with AliceTraINTClient.of_settings(settings) as client:
        report_status(job.path, client, TaskStatus.TRAINING)
        for step in range(steps):
            output = run_step(settings.store, job, step, plan.get("seconds", 0))
            log = output / f"step{step}.log"
            upload_files(job.path, client, [Upload(log, log.name, FileType.LOG, f"step {step}")])
            if step == steps - 2:
                report_status(job.path, client, TaskStatus.BENCHMARKING)
        if "exit" in plan and job.state().runs <= plan.get("fail_runs", 1_000_000):
            if "failure" in plan:
                job.failure_file.write_text(json.dumps(plan["failure"]))
            return plan["exit"]
        networks = [output_of(settings.store, job.task_id, 0) / f"{species}.onnx" for species in SPECIES]
        upload_files(job.path, client, [Upload(path, path.name, FileType.ONNX) for path in networks])
        report_status(job.path, client, TaskStatus.COMPLETED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
