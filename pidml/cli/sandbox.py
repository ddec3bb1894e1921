"""The sandbox: a whole installation on one machine, with everything real but the physics.

An embedded server on loopback, a registered machine, a simulated GRID, one queued task with the deployed form of
configuration, and the poller as an operator starts it. Running it again redoes nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dotenv import dotenv_values

from pidml.atomic import write_text
from pidml.cli.results import print_results
from pidml.errors import ServerError
from pidml.store import Store

#: The deployed form, except that fewer epochs with a larger learning rate keep the sandbox short.
CONFIGURATION = {
    "bs": 512, "max_epochs": 4, "dropout": 0.1, "gamma": 0.9, "patience": 5, "patience_threshold": 0.001,
    "embed_hidden": 128, "d_model": 32, "ff_hidden": 128, "pool_hidden": 64, "num_heads": 2, "num_blocks": 2,
    "start_lr": 0.003, "undersample": False,
}  # fmt: skip
FILES = 4


def run_sandbox(directory: Path, keep_serving: bool = False) -> int:
    """Run the sandbox in ``directory``, with a store of its own. Returns 0 if the task was completed.

    Raises:
        ServerError: the embedded server does not start.
    """
    directory = directory.absolute()
    (directory / "grid").mkdir(parents=True, exist_ok=True)
    lfns = _simulate_grid(directory / "grid")
    machine = directory / ".env"
    port = int(dotenv_values(machine).get("SANDBOX_PORT") or 0) if machine.is_file() else 0
    with _server(directory, port) as url:
        print(f"server    {url}  (pages for people)", flush=True)
        _register(directory, machine, url)
        task = _queue_once(directory, lfns)
        print(f"poller    pidml poll --once  (configured by {machine})", flush=True)
        subprocess.run(
            [sys.executable, "-m", "pidml", "poll", "--once"], env=_environment(machine), cwd=directory, check=False
        )
        completed = _print_status(directory, task)
        if completed:
            print_results(Store(_store(directory)), str(task))
        if keep_serving:
            input(f"the server's pages: {url}   press Enter to end ")
    return 0 if completed else 1


def _simulate_grid(grid: Path) -> list[str]:
    from pidml.simulation.sandbox import sandbox_lfns, write_sandbox_file

    lfns = sandbox_lfns(files=FILES)
    for lfn in lfns:
        path = grid / lfn.lstrip("/")
        if not path.is_file():
            print(f"simulate  {lfn}", flush=True)
            write_sandbox_file(lfn, path)
    return lfns


@contextmanager
def _server(directory: Path, port: int) -> Iterator[str]:
    """Start the embedded server as a process of its own and end it; yields its base URL."""
    command = [sys.executable, "-m", "pidml.server", "--data-dir", str(directory / "server"), "--port", str(port)]
    process = subprocess.Popen([*command, "--grid-dir", str(directory / "grid")], stdout=subprocess.PIPE, text=True)
    try:
        url = (process.stdout.readline() if process.stdout else "").strip()
        if not url:
            raise ServerError("the embedded server did not start", "its message is above")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _register(directory: Path, machine: Path, url: str) -> None:
    """Register this machine once; its key is kept as an operator keeps it, in a .env only the owner can read."""
    from pidml.server.store import ServerStore

    port = url.rsplit(":", 1)[-1]
    if machine.is_file():
        known = dotenv_values(machine)
        identity = f"MACHINE_ID={known['MACHINE_ID']}\nMACHINE_SECRET_KEY={known['MACHINE_SECRET_KEY']}\n"
    else:
        with ServerStore(directory / "server") as store:
            new = store.register_machine("sandbox")
        identity = f"MACHINE_ID={new.id}\nMACHINE_SECRET_KEY={new.secret}\n"
    before = os.umask(0o077)
    try:
        write_text(
            machine,
            f"{identity}ALICETRAINT_BASE_URL={url}\nPIDML_GRID={url}/grid\n"
            f"PIDML_STORE={_store(directory)}\nSANDBOX_PORT={port}\n",
        )
    finally:
        os.umask(before)


def _queue_once(directory: Path, lfns: list[str]) -> int:
    """Queue the sandbox's task unless that was done before; returns its number."""
    from pidml.server.aod import aod_file
    from pidml.server.store import ServerStore

    with ServerStore(directory / "server") as store:
        if tasks := store.tasks():
            return min(task.id for task in tasks)
        sizes = [(directory / "grid" / lfn.lstrip("/")).stat().st_size for lfn in lfns]
        files = [aod_file(lfn, size) for lfn, size in zip(lfns, sizes, strict=True)]
        return store.queue_task("sandbox", files, CONFIGURATION)


def _print_status(directory: Path, task: int) -> bool:
    from pidml.server.protocol import TaskStatus
    from pidml.server.store import ServerStore

    with ServerStore(directory / "server") as store:
        found = store.task(task)
    if found is None:
        raise ServerError(f"task {task} is gone from the server", f"remove {directory} and run the sandbox again")
    print(f"task {task}    {found.status.name.lower()}, {found.result_count} results on the server", flush=True)
    return found.status is TaskStatus.COMPLETED


def _store(directory: Path) -> Path:
    """A store belongs to one server: the sandbox's is not the one that a real server's jobs will use."""
    return Path(os.environ.get("PIDML_STORE") or directory / "store").absolute()


def _environment(machine: Path) -> dict[str, str]:
    values = {key: value for key, value in dotenv_values(machine).items() if value is not None}
    return {**os.environ, **values, "PIDML_SITE": ""}
