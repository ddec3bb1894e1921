"""A real HTCondor pool of one machine on loopback: master, collector, negotiator, schedd and startd of a user."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.schedulers.daemons import Daemons
from support.schedulers.htcondor_files import htcondor_prefix

COMMANDS = (
    "condor_submit", "condor_q", "condor_history", "condor_rm", "condor_version", "condor_status", "condor_hold",
    "condor_release", "condor_vacate_job", "condor_suspend", "condor_continue", "condor_off",
)  # fmt: skip
STATES = {1: "IDLE", 2: "RUNNING", 3: "REMOVED", 4: "COMPLETED", 5: "HELD", 6: "TRANSFERRING", 7: "SUSPENDED"}


class RealHTCondor(Daemons):
    """The daemons and how to reach them.

    HTCondor takes no jobs from root. Where tests run as root, its programs run in a user namespace in which root is an
    ordinary user; files are the same for both.

    Args:
        folder: for configuration, state and logs; its path must be short, as sockets lie in it.
        cpus: processors of the machine that may be used.
    """

    kind = "htcondor"
    submits = "condor_submit"
    tells = ("condor_q", "condor_history")

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        super().__init__(folder)
        self.cpus = cpus
        self.prefix = htcondor_prefix()
        self._become: list[str] = []
        if os.geteuid() == 0:
            user = next(each for each in pwd.getpwall() if each.pw_uid > 0)
            self._become = ["unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--"]
            tried = subprocess.run([*self._become, "true"], capture_output=True, text=True, check=False, timeout=20)
            if tried.returncode != 0:
                pytest.skip(f"HTCondor takes no jobs from root, and there are no user namespaces: {tried.stderr}")
        commands = folder / "bin"
        self.environment = {"CONDOR_CONFIG": str(folder / "condor_config"), "PATH": f"{commands}:{os.environ['PATH']}"}

    @contextmanager
    def running(self) -> Iterator[RealHTCondor]:
        """Start the pool; end it with all its jobs."""
        for name in ("log", "spool", "execute", "lock", "sock", "bin"):
            (self.folder / name).mkdir()
        for name in COMMANDS:
            program = next(self.prefix.glob(f"*bin/{name}"))
            (self.folder / "bin" / name).write_text(f'#!/bin/sh\nexec {" ".join([*self._become, str(program)])} "$@"\n')
            (self.folder / "bin" / name).chmod(0o755)
        self._configure()
        try:
            self._start(str(self.prefix / "sbin" / "condor_master"), "-f", inside=self._become)
            self.wait_for(lambda: "slot1" in (self.ask("condor_status", "-af", "Name") or ""))
            yield self
        finally:
            self.ask("condor_rm", "-all")
            self.ask("condor_off", "-fast", "-master")
            self._end()

    def all_ads(self, *attributes: str) -> list[dict[str, object]]:
        """Return attributes of all jobs, oldest first, those that have ended too."""
        names = ",".join({"ClusterId", "JobStatus", "PidmlToken", *attributes})
        texts = [self.ask(command, "-json", "-attributes", names) or "" for command in self.tells]
        ads = {ad["ClusterId"]: ad for text in reversed(texts) if text.strip() for ad in json.loads(text)}
        return [ads[number] for number in sorted(ads)]

    def _all_jobs(self) -> list[tuple[str, str]]:
        return [(str(ad.get("PidmlToken", "")), STATES[int(str(ad["JobStatus"]))]) for ad in self.all_ads()]

    def numbers(self, name: str) -> list[str]:
        """Return the numbers of the jobs whose token holds a text."""
        return [str(ad["ClusterId"]) for ad in self.all_ads() if name in str(ad.get("PidmlToken", ""))]

    def processes(self) -> list[int]:
        """Return the numbers of the processes of jobs that run now, one per job: its script."""
        found = []
        for starter in psutil.process_iter(["name", "environ"]):
            ours = str(self.folder) in (starter.info["environ"] or {}).get("CONDOR_CONFIG", "")
            if ours and starter.info["name"] == "condor_starter":
                with contextlib.suppress(psutil.NoSuchProcess):  # it ends with its job
                    found += [child.pid for child in starter.children()]
        return found

    def remove(self, name: str) -> None:
        """Take a job out of the queue as its owner would."""
        self.ask("condor_rm", *self.numbers(name))

    def memory_asked(self, store: Path) -> list[int]:
        """Return the memory in MB that each job of a store's workflows asked for, oldest first."""
        names = {name for name, _ in self.jobs(store)}
        return [int(str(ad["RequestMemory"])) for ad in self.all_ads("RequestMemory") if ad.get("PidmlToken") in names]

    def _configure(self) -> None:
        folder, usr = self.folder, self.prefix
        (folder / "condor_config").write_text(f"""
RELEASE_DIR = {usr}
BIN = {usr}/bin
SBIN = {usr}/sbin
LIB = {usr}/lib
LIBEXEC = {usr}/libexec/condor
LOCAL_DIR = {folder}
LOG = {folder}/log
SPOOL = {folder}/spool
EXECUTE = {folder}/execute
LOCK = {folder}/lock
RUN = {folder}/lock
DAEMON_SOCKET_DIR = {folder}/sock
COLLECTOR_ADDRESS_FILE = {folder}/log/.collector_address
CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:0
use ROLE : Personal
DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = false
ENABLE_IPV6 = false
use SECURITY : HOST_BASED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
UID_DOMAIN = pool
FILESYSTEM_DOMAIN = pool
NUM_CPUS = {self.cpus}
MEMORY = 8000
START = true
SUSPEND = false
PREEMPT = false
KILL = false
use POLICY : Hold_If_Memory_Exceeded
MODIFY_REQUEST_EXPR_REQUESTMEMORY = RequestMemory
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1
UPDATE_INTERVAL = 5
POLLING_INTERVAL = 1
PERIODIC_EXPR_INTERVAL = 2
STARTER_UPDATE_INTERVAL = 1
STARTER_INITIAL_UPDATE_INTERVAL = 1
PID_SNAPSHOT_INTERVAL = 1
CLAIM_WORKLIFE = 0
SHUTDOWN_FAST_TIMEOUT = 10
""")
