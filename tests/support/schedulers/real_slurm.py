"""A real Slurm of one node, with accounting, on loopback: installed from the distribution, run by tests."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.schedulers.daemons import Daemons

PACKAGES = ("slurm-wlm", "slurmdbd", "munge", "mariadb-server")
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch", "sacct")


def install() -> None:
    """Install Slurm unless it is there; skips the test where that cannot be done."""
    if not _missing():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"Slurm is not installed ({', '.join(_missing())}), and only root on Debian can install it here")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    for attempt in (["true"], ["apt-get", "update"]):
        subprocess.run(attempt, env=environment, capture_output=True, check=False, timeout=200)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
        if done.returncode == 0 and not _missing():
            return
    pytest.skip(f"Slurm could not be installed: {done.stderr[-300:]}")


def _missing() -> list[str]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class RealSlurm(Daemons):
    """The daemons and how to reach them.

    Args:
        folder: for configuration, state and logs; its path must be short, as sockets lie in it.
        cpus: processors of the node.
    """

    kind = "slurm"
    submits = "sbatch"
    tells = ("squeue", "sacct")

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        super().__init__(folder)
        self.cpus = cpus
        self.host = socket.gethostname().split(".")[0]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    @contextmanager
    def running(self) -> Iterator[RealSlurm]:
        """Start everything; end it in the reverse order."""
        for name in ("state", "spool", "db"):
            (self.folder / name).mkdir()
        self._configure()
        try:
            self._start_munge()
            self._start_database()
            self._start("slurmdbd", "-D")
            self.wait_for(lambda: self.ask("sacctmgr", "--noheader", "list", "cluster") is not None)
            self.ask("sacctmgr", "--immediate", "add", "cluster", "pidml")
            self._start("slurmctld", "-D", "-c")
            self._start("slurmd", "-D", "-c")
            self.wait_for(lambda: "idle" in (self.ask("sinfo", "--noheader", "--format=%T") or ""))
            yield self
        finally:
            self.ask("scancel", f"--user={getpass.getuser()}")
            self._end()

    def _all_jobs(self) -> list[tuple[str, str]]:
        out = self.ask("sacct", "-X", "-n", "-P", "--starttime=now-1hour", "--format=JobName,State") or ""
        rows = [line.split("|") for line in out.splitlines()]
        return [(name, state.split()[0]) for name, state in rows]

    def processes(self) -> list[int]:
        """Return the numbers of the processes of jobs that run now; the first is a job's script."""
        lines = (self.ask("scontrol", "listpids") or "").splitlines()
        return [int(words[0]) for line in lines if (words := line.split()) and words[0].isdigit()]

    def remove(self, name: str) -> None:
        """Take a job out of the queue as its owner would."""
        self.ask("scancel", f"--name={name}")

    def set_node(self, state: str) -> None:
        """Change the state of the node as an administrator would; ``DOWN`` is what Slurm does when one vanishes."""
        self.ask("scontrol", "update", f"NodeName={self.host}", f"State={state}", "Reason=test")

    @contextmanager
    def node_without(self, folder: Path) -> Iterator[None]:
        """Have the node not see a folder, as one to which a file system is not mounted; skips where that cannot be."""
        hide = ["unshare", "--mount", "--", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder)]
        tried = subprocess.run([*hide, "true"], capture_output=True, text=True, check=False, timeout=20)
        if tried.returncode != 0:
            pytest.skip(f"nothing can be mounted here: {tried.stderr}")
        self._restart_node(hide)
        try:
            yield
        finally:
            self._restart_node([])

    def _restart_node(self, inside: list[str]) -> None:
        ended = self._processes.pop()
        ended.terminate()
        ended.wait(timeout=20)
        self._start("slurmd", "-D", "-c", inside=inside)
        self.set_node("RESUME")
        self.wait_for(lambda: "idle" in (self.ask("sinfo", "--noheader", "--format=%T") or ""))

    def memory_asked(self, store: Path) -> list[int]:
        """Return the memory in MB that each job of a store's workflows asked for, oldest first."""
        names = {name for name, _ in self.jobs(store)}
        rows = (self.ask("sacct", "-X", "-n", "-P", "--format=JobName,ReqMem") or "").splitlines()
        return [int(memory.rstrip("M")) for name, memory in (row.split("|") for row in rows) if name in names]

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        at = [f"--{what}={self.folder}/munge.{what.split('-')[0]}" for what in ("pid-file", "log-file", "seed-file")]
        self._start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.socket", *at
        )
        self.wait_for((self.folder / "munge.socket").exists)

    def _start_database(self) -> None:
        data, user = self.folder / "db", getpass.getuser()
        common = ["--no-defaults", f"--datadir={data}"]
        subprocess.run(
            ["mariadb-install-db", *common, f"--user={user}", "--auth-root-authentication-method=socket"],
            capture_output=True, check=True, timeout=120,
        )  # fmt: skip
        self._start(
            "mariadbd", *common, f"--user={user}", f"--socket={self.folder}/db.socket", f"--port={self.ports[3]}",
            "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M", f"--pid-file={self.folder}/db.pid",
        )  # fmt: skip
        statement = (
            "CREATE DATABASE slurm; CREATE USER slurm@localhost IDENTIFIED BY 'loopback'; "
            "CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'loopback'; GRANT ALL ON slurm.* TO slurm@localhost; "
            "GRANT ALL ON slurm.* TO slurm@'127.0.0.1';"
        )
        client = ["mariadb", "--no-defaults", f"--socket={self.folder}/db.socket", f"--user={user}", "--execute"]
        self.wait_for(lambda: self.ask(*client, "SELECT 1") is not None)
        assert self.ask(*client, statement) is not None

    def _configure(self) -> None:
        self.ports = _free_ports(4)
        host, folder, user = self.host, self.folder, getpass.getuser()
        (folder / "slurm.conf").write_text(f"""
ClusterName=pidml
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={self.ports[0]}
SlurmdPort={self.ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,defer_batch
ReturnToService=2
KillWait=2
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self.ports[2]}
AccountingStoragePass={folder}/munge.socket
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={self.cpus} RealMemory=8000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=24:00:00 State=UP
PartitionName=short Nodes=ALL MaxTime=00:30:00 State=UP
""")
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        database = folder / "slurmdbd.conf"
        database.write_text(f"""
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={self.ports[2]}
SlurmUser={user}
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self.ports[3]}
StorageUser=slurm
StoragePass=loopback
StorageLoc=slurm
""")
        database.chmod(0o600)
