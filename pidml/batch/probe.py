"""A tiny job that says whether workers can run jobs: they see the store and have the same Python with its packages.

It runs the same bootstrap script as every job, so what it finds is what jobs would find.
"""

from __future__ import annotations

import base64
import os
import platform
import re
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pidml import resources
from pidml.atomic import write_text
from pidml.batch import htcondor, slurm
from pidml.batch.commands import run_command
from pidml.batch.environment import job_environment
from pidml.batch.site import Site
from pidml.batch.status import State
from pidml.batch.submission import htcondor_lines, slurm_lines
from pidml.batch.summary import telling_line
from pidml.errors import BatchError
from pidml.spec.resources_section import StepResources

#: Longest time to wait for the answer, in s.
PATIENCE = 60.0
MODULES = ("law", "luigi", "numpy", "uproot", "torch", "lightning")
_ASKS = StepResources(cores=1, memory=0.5, disk=0.1, time=2 / 60)
_PAUSE = 0.5
#: Exit code of a probe that sees nothing of the folder in which it was to write its log.
_BLIND = 72
_REPORT = """
import importlib.metadata, platform
print(platform.node(), platform.python_version(), importlib.metadata.version("torch"), sep="|")
"""


@dataclass(frozen=True)
class Worker:
    """What a worker said: its name, versions of Python and torch, and the s from submission to answer."""

    node: str
    python: str
    torch: str
    seconds: float


def probe(
    site: Site,
    store: Path,
    patience: float = PATIENCE,
    modules: tuple[str, ...] = MODULES,
    environ: Mapping[str, str] = os.environ,
) -> Worker:
    """Submit a probe job and return what it says; the job is taken out of the queue if it does not start in time.

    Its log is kept only if it fails.

    Args:
        site: the profile, of Slurm or HTCondor.
        store: root of the store.
        patience: longest time to wait, in s.
        modules: packages that must be there.
        environ: of it the job gets what every job gets.

    Raises:
        BatchError: it was not taken, did not run in time, or found that the worker cannot run jobs.
        ToolMissing: the scheduler's commands are not here.
        DiskFull, StoreError: the store cannot be written.
    """
    name = f"probe-{uuid.uuid4().hex[:8]}"
    shared = store / ".batch" / name
    folder = Path(site.submit_dir).expanduser() / name if site.submit_dir else shared
    write_text(shared / "visible", platform.node() + "\n")
    write_text(folder / "probe.sh", _script(site, shared, folder, _values(site, store, shared, modules, environ)))
    (folder / "probe.sh").chmod(0o700)
    system: ModuleType = slurm if site.workflow == "slurm" else htcondor
    started = time.monotonic()
    job = _slurm(folder, name) if system is slurm else _htcondor(site, folder, name)
    try:
        _wait(system.query, job, shared / "answer", folder / "probe.log", started + patience)
    except BaseException:
        system.cancel([job])
        raise
    seconds = time.monotonic() - started
    node, python, torch = (shared / "answer").read_text(encoding="utf-8").strip().split("|")
    for each in {shared, folder}:
        shutil.rmtree(each, ignore_errors=True)
    return Worker(node, python, torch, seconds)


def _wait(query: Callable[[list[Any]], dict[Any, Any]], job: Any, answer: Path, log: Path, deadline: float) -> None:
    missing = 0
    while not answer.is_file():
        status = query([job]).get(job)
        missing = 0 if status else missing + 1
        over = status is not None and status.state in (State.finished, State.failed)
        if (over or missing > 3) and not answer.is_file():
            why = telling_line(log) or (status.reason if status else "the scheduler does not know the job any more")
            if status is not None and status.code == _BLIND:
                why = f"{status.node or 'the worker'} does not see {log.parent}: it must be on a shared file system"
                raise BatchError(f"the probe job {job} failed: {why}", "set PIDML_STORE to a folder that workers share")
            raise BatchError(f"the probe job {job} failed: {why}", f"correct the profile; the job's log is {log}")
        if time.monotonic() > deadline:
            waits = f"the probe job {job} is still {status.state}" if status else f"the probe job {job} is not listed"
            reason = f" ({status.reason})" if status and status.reason else ""
            raise BatchError(f"{waits}{reason}; taken back", "the queue is long: ask again later, or another partition")
        time.sleep(_PAUSE)


def _values(
    site: Site, store: Path, shared: Path, modules: tuple[str, ...], environ: Mapping[str, str]
) -> dict[str, str]:
    """Return what is filled into the bootstrap script."""
    environment = job_environment(environ, store, _ASKS.cores)
    exports = "\n".join(f"export {key}={shlex.quote(value)}" for key, value in environment.items())
    return {
        "pidml_environment": base64.b64encode(exports.encode()).decode(),
        "pidml_setup": base64.b64encode("\n".join(site.setup).encode()).decode(),
        "pidml_python": sys.executable,
        "pidml_root": str(resources.ROOT) if (resources.ROOT / "tasks").is_dir() else "",
        "pidml_marker": str((shared / "visible").relative_to(store)),
        "pidml_version": platform.python_version(),
        "pidml_modules": ",".join(modules),
    }


def _script(site: Site, shared: Path, folder: Path, values: Mapping[str, str]) -> str:
    """Return the job's script: the bootstrap of all jobs, then a line about the worker."""
    text = (resources.scripts() / "bootstrap.sh").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"{{{{{key}}}}}", value)
    answer = shlex.quote(str(shared / "answer"))
    lines = [
        "#!/usr/bin/env bash",
        *(_slurm_header(site) if site.workflow == "slurm" else []),
        f"[ -d {shlex.quote(str(folder))} ] || exit {_BLIND}",
        f"exec >>{shlex.quote(str(folder / 'probe.log'))} 2>&1",
        'export LAW_JOB_HOME="$(mktemp -d)"',
        text,
        "code=$?",
        'rm -rf "$LAW_JOB_HOME"',
        '[ "$code" = 0 ] || exit "$code"',
        f"{shlex.quote(sys.executable)} -c {shlex.quote(_REPORT)} >{answer}.part && mv {answer}.part {answer}",
    ]
    return "\n".join([*lines, ""])


def _slurm_header(site: Site) -> list[str]:
    # a log that cannot be opened would keep the job from starting, and from saying why
    options: list[Any] = [("output", "/dev/null")]
    options += [("partition", site.partition)] if site.partition else []
    lines = []
    for option in [*options, *slurm_lines(_ASKS, site, {}, 1)]:
        lines.append(option if isinstance(option, str) else "#SBATCH --" + "=".join(map(str, option)))
    return lines


def _slurm(folder: Path, name: str) -> int:
    said = run_command(["sbatch", "--parsable", f"--job-name=pidml-{name}", str(folder / "probe.sh")])
    return int(said.strip().split(";")[0].split()[-1])


def _htcondor(site: Site, folder: Path, name: str) -> str:
    lines = [("universe", "vanilla"), ("executable", folder / "probe.sh"), ("initialdir", folder)]
    lines += [("should_transfer_files", "YES"), ("transfer_output_files", '""')]  # as all jobs: it may see no folder
    if site.submit_dir:
        lines.append(("log", folder / "htcondor.log"))
    lines += htcondor_lines(_ASKS, site, {}, 1, f"pidml-{name}")
    text = "\n".join(f"{key} = {value}" for key, value in lines)
    write_text(folder / "probe.sub", f"{text}\nqueue\n")
    said = run_command(["condor_submit", str(folder / "probe.sub")])
    if (found := re.search(r"submitted to cluster (\d+)", said)) is None:
        raise BatchError(f"condor_submit: {said.strip()}", "see whether the scheduler is up")
    return f"{found.group(1)}.0"
