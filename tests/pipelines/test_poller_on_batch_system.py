"""A poller whose jobs run on a batch system: it waits for one that is away, and its own death harms no job there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.schedulers.standin import StandIn
from support.training_site import CONFIGURATION, LFNS, Site, running_site

from pidml.alicetraint.jobs import State, job_directory
from pidml.server.protocol import TaskStatus

pytestmark = pytest.mark.slow


class OnFarm:
    """A training machine whose profile is a stand-in scheduler."""

    def __init__(self, folder: Path, site: Site, scheduler: StandIn) -> None:
        self.folder, self.site, self.scheduler = folder, site, scheduler
        self.gate = folder / "open"
        self._profile = folder / "site.cfg"
        self._profile.write_text("[pidml_site]\nworkflow: slurm\n")
        site.environment = scheduler.environment | {"PIDML_SITE": str(self._profile)}
        self._pollers: list[subprocess.Popen[bytes]] = []

    def close_gate(self) -> None:
        """Let jobs wait until the gate is open. What waits is a process: a shell's loop would outlive its end."""
        waits = f"bash -c 'until [ -e {self.gate} ]; do sleep 0.1; done'"
        self._profile.write_text(f"[pidml_site]\nworkflow: slurm\nsetup: {waits}\n")

    def at_the_gate(self) -> set[int]:
        """Return the processes of jobs that wait at the gate."""
        waiting = ["bash", "-c", f"until [ -e {self.gate} ]; do sleep 0.1; done"]
        return {process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == waiting}

    def poll(self, *options: str) -> subprocess.Popen[bytes]:
        command, settings = self.site.command("poll", *options)
        with (self.folder / "poll.log").open("ab") as log:
            made = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **settings)
        self._pollers.append(made)
        return made

    def state(self, task: int) -> State:
        return job_directory(self.folder / "store", task).state()

    def code(self, task: int) -> str:
        """Return the code of the reason for which a task waits, or failed."""
        claimed = job_directory(self.folder / "store", task)
        return str((claimed.state().reason or {}).get("code", "")) if claimed.path.is_dir() else ""

    def wait_for(self, condition: Callable[[], bool]) -> None:
        self.scheduler.wait_for(condition, seconds=90)

    def end(self) -> None:
        for poller in self._pollers:
            family = psutil.Process(poller.pid).children(recursive=True) if poller.poll() is None else []
            poller.kill()
            poller.wait(timeout=30)
            psutil.wait_procs(family, timeout=30)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[OnFarm]:
    scheduler = StandIn(tmp_path / "spool")
    with running_site(tmp_path, tracks=500) as site, scheduler.running():
        made = OnFarm(tmp_path, site, scheduler)
        try:
            yield made
        finally:
            made.end()


def test_an_outage_of_the_scheduler_fails_no_task(farm: OnFarm) -> None:
    farm.site.environment |= {"PIDML_JOB_ATTEMPTS": "1", "PIDML_RETRY_SECONDS": "0.1"}
    farm.scheduler.set("down")
    task = farm.site.queue(LFNS, CONFIGURATION)
    farm.poll("--once")
    farm.wait_for(lambda: farm.code(task) == "P911")
    farm.wait_for(lambda: farm.state(task).runs >= 2)
    assert farm.site.status(task) is TaskStatus.TRAINING
    assert not farm.scheduler.jobs()
    farm.scheduler.unset("down")
    farm.wait_for(lambda: len(farm.scheduler.jobs()) == len(LFNS))


def test_a_download_that_fails_in_a_job_is_as_passing_as_one_that_fails_here(farm: OnFarm) -> None:
    farm.site.environment |= {
        "PIDML_GRID": "http://127.0.0.1:9/grid", "PIDML_FETCH_ATTEMPTS": "1", "PIDML_RETRY_SECONDS": "600",
    }  # fmt: skip
    task = farm.site.queue(LFNS[:1], CONFIGURATION)
    farm.poll("--once")
    farm.wait_for(lambda: bool(farm.code(task)))
    assert (farm.state(task).phase, farm.code(task)) == ("claimed", "P300"), "it is tried again"
    assert farm.site.status(task) is TaskStatus.TRAINING


def test_a_poller_that_is_killed_and_started_again_leaves_its_jobs_alone(farm: OnFarm) -> None:
    farm.close_gate()
    task = farm.site.queue(LFNS, CONFIGURATION)
    poller = farm.poll()
    farm.wait_for(lambda: len(farm.at_the_gate()) == len(LFNS))
    before = farm.at_the_gate()
    poller.kill()
    poller.wait(timeout=30)
    farm.poll()
    farm.wait_for(lambda: farm.state(task).runs == 2 and farm.state(task).phase == "running")
    asked = farm.scheduler.calls("squeue")
    farm.wait_for(lambda: farm.scheduler.calls("squeue") > asked + 1)
    assert farm.at_the_gate() == before, "they are not the poller's processes"
    farm.gate.touch()
    farm.wait_for(lambda: len(list((farm.folder / "store").glob("DownloadAOD/*/provenance.json"))) == len(LFNS))
    made = [job["name"].split("-")[1] for job in farm.scheduler.jobs()]
    assert made.count("DownloadAOD") == len(LFNS), "nothing is submitted twice"
