"""What law costs: the status of the sandbox job, and a rerun of a job that is complete. Medians of five."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import yaml
from common import emit

from pidml.law_command import law_command, law_environment
from pidml.simulation.files import simulate_files

REPETITIONS = 5
SMALL = {
    "model": {"architecture": "masked-mlp", "hidden": [16], "dropout": 0.0},
    "training": {"batch_size": 512, "max_epochs": 1, "learning_rate": 0.01, "accelerator": "cpu"},
    "evaluation": {"pt_edges": [0.0, 1.0, 5.0]},
}


def seconds(store: Path, *arguments: str) -> float:
    """Return the wall-clock time of one ``law run TrainingJob`` in s.

    Raises:
        CalledProcessError: law failed.
    """
    start = time.perf_counter()
    subprocess.run(law_command("TrainingJob", arguments), env=law_environment(store), capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        store, job = Path(folder, "store"), Path(folder, "job.yaml")
        files = simulate_files(Path(folder, "input"), 20_000, 4, "tracks")
        job.write_text(yaml.safe_dump({"dataset": {"files": [str(path) for path in files]}, **SMALL}))
        seconds(store, "--job", str(job))
        status = [seconds(store, "--job", "sandbox", "--print-status", "-1") for _ in range(REPETITIONS)]
        rerun = [seconds(store, "--job", str(job)) for _ in range(REPETITIONS)]
    emit("status of the sandbox job", statistics.median(status), "s", repetitions=REPETITIONS)
    emit("rerun of a complete job", statistics.median(rerun), "s", repetitions=REPETITIONS)


if __name__ == "__main__":
    main()
