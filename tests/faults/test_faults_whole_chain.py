"""Kills of the poller and of the law processes of real jobs, from download to upload, at random moments.

PIDML_SOAK_KILLS sets how many (50 by default), PIDML_SOAK_SEED the seed. One JSON line of counts is printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from support.training_site import CONFIGURATION, Site, running_site, write_on_grid

from pidml.alicetraint.jobs import job_directory, read_json
from pidml.server.protocol import TaskStatus

KILLS = int(os.environ.get("PIDML_SOAK_KILLS", "50"))
SEED = int(os.environ.get("PIDML_SOAK_SEED", "1"))
#: Kills aimed at one job before the next one is queued: several lives per job, and every step in reach of some kill.
KILLS_PER_JOB = 6
#: Longest time of one job, s.
PATIENCE = 900.0
ENVIRONMENT = {"PIDML_JOB_ATTEMPTS": "1000", "PIDML_JOB_LIVES": "1000", "PIDML_RETRY_SECONDS": "0.1"}


class Chain:
    """Jobs one after another under one poller that is started again whenever it was killed."""

    def __init__(self, site: Site) -> None:
        site.environment |= ENVIRONMENT
        self.site = site
        self.store = site.folder / "store"
        self.random = random.Random(SEED)
        self.tasks: list[int] = []
        self.struck: Counter[str] = Counter()
        self.victims: Counter[str] = Counter()
        self.made: dict[Path, str] = {}
        self.recomputed = 0
        self.lives = 0
        self.poller: subprocess.Popen[bytes] | None = None

    @property
    def kills(self) -> int:
        return sum(self.victims.values())

    def queue(self) -> int:
        """Queue a job over a file of its own, so that no step of it is there already."""
        number = len(self.tasks) + 1
        lfn = f"/alice/sim/2026/LHC26t/0/8/AOD/{number:03d}/AO2D.root"
        write_on_grid(self.site.folder, lfn, number)
        self.tasks.append(self.site.queue([lfn], CONFIGURATION))
        return self.tasks[-1]

    def start(self) -> None:
        if self.poller is None or self.poller.poll() is not None:
            command, options = self.site.command("poll")
            with (self.site.folder / "poller.log").open("ab") as log:
                self.poller = subprocess.Popen(command, **options, stderr=log)
            self.lives += 1

    def stop(self) -> None:
        assert self.poller is not None
        self.poller.terminate()
        assert self.poller.wait(60) == 0

    def ended(self, task: int) -> bool:
        return self.site.status(task) in (TaskStatus.COMPLETED, TaskStatus.FAILED)

    def goes_on_after(self, task: int, seconds: float) -> bool:
        """Let the job go on until it ends or the time is over; tell whether it goes on still."""
        deadline = time.monotonic() + seconds
        while not self.ended(task) and time.monotonic() < deadline:
            self.start()
            time.sleep(0.02)
        return not self.ended(task)

    def finish(self, task: int) -> None:
        assert not self.goes_on_after(task, PATIENCE), (self.site.folder / "poller.log").read_text()[-3000:]
        self.look()

    def kill(self, task: int) -> None:
        """Kill the poller, all law processes of the job, or both, as by kill -9."""
        victim = self.random.choice(["poller", "job", "poller and job"])
        processes = self.law_processes() if "job" in victim else []
        if "poller" in victim and self.poller is not None:
            processes.insert(0, psutil.Process(self.poller.pid))
        told = read_json(job_directory(self.store, task).progress_file) or {}
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if processes:
            self.victims[victim] += 1
            self.struck[str(told.get("step", "before the first step"))] += 1
        if "poller" in victim and self.poller is not None:
            self.poller.wait()
        self.look()

    def law_processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                own = process.environ().get("PIDML_STORE") == str(self.store)
                if own and "law" in words and "TrainingJob" in words:
                    found.append(process)
        return found

    def look(self) -> None:
        """Count outputs that were complete and were made again."""
        now = {path: path.read_text() for path in self.store.glob("[A-Z]*/*/provenance.json")}
        self.recomputed += sum(now.get(path) != text for path, text in self.made.items())
        self.made = now

    def books(self, expected: int) -> dict[str, object]:
        """Return the counts; every job owes as many results as the one that nothing disturbed."""
        names = [[each.file_name for each in self.site.server.store.results(task)] for task in self.tasks]
        missing = sum(max(0, expected - len(set(each))) for each in names)
        return {
            "faults": self.kills,
            "kinds": dict(sorted(self.victims.items())),
            "struck": dict(sorted(self.struck.items())),
            "jobs": len(self.tasks),
            "poller_lives": self.lives,
            "results": sum(map(len, names)),
            "lost": missing + sum(self.site.status(task) is not TaskStatus.COMPLETED for task in self.tasks),
            "duplicated": sum(len(each) - len(set(each)) for each in names),
            "recomputed": self.recomputed,
        }


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_kills_across_the_whole_chain_lose_and_repeat_nothing(tmp_path: Path) -> None:
    with running_site(tmp_path, tracks=100) as site:
        chain = Chain(site)
        begin = time.monotonic()
        undisturbed = chain.queue()
        chain.finish(undisturbed)
        duration = time.monotonic() - begin
        expected = len(site.server.store.results(undisturbed))
        while chain.kills < KILLS:
            task, last = chain.queue(), min(chain.kills + KILLS_PER_JOB, KILLS)
            # Moments spread over the job's whole length: each life does a part of it.
            while chain.kills < last and chain.goes_on_after(
                task, chain.random.uniform(0.0, 2.0 * duration / KILLS_PER_JOB)
            ):
                chain.kill(task)
            chain.finish(task)
        chain.stop()
        assert chain.law_processes() == []
        books = chain.books(expected)
        print(json.dumps(books | {"seconds": round(time.monotonic() - begin, 1), "job_s": round(duration, 1)}))
        assert (books["lost"], books["duplicated"], books["recomputed"]) == (0, 0, 0)
