"""A job small enough to run in seconds, and law runs in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pidml.law_command import law_command, law_environment
from pidml.simulation.files import simulate_files

#: One epoch of a small network, few plots' worth of bins.
SETTINGS: dict[str, Any] = {
    "model": {"architecture": "masked-mlp", "hidden": [16], "dropout": 0.0},
    "training": {"batch_size": 256, "max_epochs": 1, "learning_rate": 0.01, "accelerator": "cpu"},
    "evaluation": {"pt_edges": [0.0, 0.5, 1.0, 5.0]},
    "export": {"check_tracks": 500},
}


def write_job(
    folder: Path, tracks: int = 6000, files: int = 2, fmt: str = "tracks", seed: int = 1, **settings: Any
) -> Path:
    """Simulate input files below ``folder`` and write a job file over them; returns its path."""
    paths = simulate_files(folder / "input", tracks, files, fmt, seed, frames=1)  # type: ignore[arg-type]
    path = folder / "job.yaml"
    content = {"name": "small", "dataset": {"files": [str(each) for each in paths]}, **SETTINGS, **settings}
    path.write_text(yaml.safe_dump(content))
    return path


def law_run(
    store: Path, task: str, *arguments: str, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``law run`` to its end, from a folder that is not the repository's."""
    store.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        law_command(task, arguments),
        env=law_environment(store) | environment,
        cwd=store,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def law_start(store: Path, task: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start ``law run`` in a process group of its own; its output goes to ``<store>/law.out``."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / "law.out").open("ab") as out:
        return subprocess.Popen(
            law_command(task, arguments),
            env=law_environment(store),
            cwd=store,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process started by :func:`law_start` and all its children at once, as a power cut would."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


def outputs(store: Path, steps: Sequence[str]) -> dict[str, list[Path]]:
    """Return the output directories of the steps in a store; temporary and work folders are not outputs."""
    return {
        step: sorted(
            path
            for path in (store / step).glob("*")
            if path.is_dir() and not path.name.startswith(".") and path.suffix != ".work"
        )
        for step in steps
    }


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)
