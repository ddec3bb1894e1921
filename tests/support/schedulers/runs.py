"""law runs on a real scheduler, whose jobs wait at a gate as long as a test wants them to."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from support.schedulers.daemons import Daemons
from support.small_job import write_job

from pidml.law_command import law_command, law_environment


class Runs:
    """law runs over four small AO2D files, with a real scheduler at hand.

    Args:
        scheduler: the scheduler.
        folder: of the test; the store is made in it.
    """

    def __init__(self, scheduler: Daemons, folder: Path) -> None:
        self.scheduler = scheduler
        self.folder = folder
        self.store = folder / "store"
        self.gate = folder / "closed"
        self.site = folder / "site.cfg"
        self.write_site()

    def write_site(self, **options: str | Sequence[str]) -> None:
        """Write a profile whose jobs wait while the gate is closed."""
        values = {"workflow": self.scheduler.kind, "setup": [f"while [ -e {self.gate} ]; do sleep 0.1; done"]} | options
        lines = [f"{key}: {text if isinstance(text, str) else chr(10) + _block(text)}" for key, text in values.items()]
        self.site.write_text("\n".join(["[pidml_site]", *lines, ""]))

    def write_job(self, files: int = 4, **resources: float) -> Path:
        """Write the job file ``job.yaml`` over simulated files; ``resources`` are those of a download."""
        return write_job(self.folder, tracks=500 * files, files=files, fmt="ao2d", resources={"download": resources})

    def environment(self, store: Path, **extra: str) -> dict[str, str]:
        """Return the environment of a run."""
        store.mkdir(exist_ok=True)
        return law_environment(store) | self.scheduler.environment | {"PIDML_SITE": str(self.site)} | extra

    def _command(self, task: str, options: Sequence[str]) -> list[str]:
        return law_command(task, ["--job", str(self.folder / "job.yaml"), "--poll-interval", "0.02", *options])

    def run(self, *options: str, task: str = "DownloadAOD", **extra: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            self._command(task, options), env=self.environment(self.store, **extra), cwd=self.folder, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=150, check=False,
        )  # fmt: skip

    def start(self, *options: str, task: str = "DownloadAOD", **extra: str) -> subprocess.Popen[bytes]:
        """Start a run in a process group of its own; what it prints goes to ``law.out``."""
        with (self.folder / "law.out").open("ab") as out:
            return subprocess.Popen(
                self._command(task, options), env=self.environment(self.store, **extra), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        """What started runs have printed."""
        return (self.folder / "law.out").read_text()

    def jobs(self) -> list[tuple[str, str]]:
        """Return (name, state) of the jobs of this store."""
        return self.scheduler.jobs(self.store)

    def states(self) -> list[str]:
        """Return the states of the jobs, oldest first."""
        return [state for _, state in self.jobs()]

    def submissions(self) -> Counter[str]:
        """Return step and branch → how often a job was submitted."""
        return Counter("-".join(name.split("-")[1:3]) for name, _ in self.jobs())

    def end(self) -> None:
        """Leave nothing behind that keeps the scheduler's only node busy."""
        self.gate.unlink(missing_ok=True)
        for name, _ in self.jobs():
            self.scheduler.remove(name)

    def wait_for_states(self, *states: str) -> None:
        """Wait until the jobs are in these states."""
        self.scheduler.wait_for(lambda: self.states() == list(states))


def _block(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)
