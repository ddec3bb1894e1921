"""What the server keeps to when it is pressed: many machines at once, kills, large requests, a full disk."""

import http.client
import json
import multiprocessing
import re
import resource
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import requests
from support.server_process import running_server, start_server, stop_server

from pidml.server.protocol import TaskStatus
from pidml.server.store import ServerStore

LFN = "/alice/sim/2026/LHC26sandbox/0/560001/AOD/001/AO2D.root"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture
def server(tmp_path):
    with running_server(tmp_path) as running:
        yield running


def test_large_uploads_are_413_and_the_answer_arrives(tmp_path):
    options = ("--max-upload-bytes", "1000000", "--max-body-bytes", "20000000")
    with running_server(tmp_path / "small", options=options) as server:
        machine = server.store.register_machine("m")
        server.store.queue_task("t", [{"Path": LFN}], {})
        task = server.fetch(*machine).json()["ID"]
        assert server.upload(task, machine.secret, "a.log", bytes(1_000_000)).status_code == 201
        assert server.upload(task, machine.secret, "b.log", bytes(1_000_001)).status_code == 413
        assert server.upload(task, machine.secret, "c.log", bytes(39_000_000)).status_code == 413
        assert server.upload(task, "wrong", "d.log", bytes(19_000_000)).status_code == 401
        for secret, size, expected in (("wrong", 19_000_000, 401), (machine.secret, 39_000_000, 413)):
            # This client sends all before it listens: an early answer followed by a closed connection would break it.
            with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)) as plain:
                plain.request(
                    "POST", f"/training-tasks/{task}/status", bytes(size), {"Secret-Id": secret, "Connection": "close"}
                )
                assert plain.getresponse().status == expected
        url = f"{server.url}/training-tasks/{task}/status"
        chunked = requests.post(
            url, data=(b"x" * 100_000 for _ in range(300)), headers={"Secret-Id": machine.secret}, timeout=60
        )
        assert chunked.status_code == 413
        assert [result.file_name for result in server.store.results(task)] == ["a.log"]


def test_machines_polling_at_once_never_share_a_task(server):
    machines = [server.store.register_machine(f"poller {n}") for n in range(4)]
    queued = [server.store.queue_task(f"contested {n}", [{"Path": LFN}], {}) for n in range(60)]

    def poll(number):
        headers = {"Secret-Id": machines[number % 4].secret}
        taken = []
        with requests.Session() as session:
            while True:
                url = f"{server.url}/training-machines/{machines[number % 4].id}/training-task"
                answer = session.get(url, headers=headers, timeout=60)
                if answer.status_code == 404:
                    return taken
                taken.append((answer.json()["ID"], machines[number % 4].id))

    with ThreadPoolExecutor(16) as pool:
        taken = [pair for pairs in pool.map(poll, range(16)) for pair in pairs]
    assert Counter(task for task, _ in taken) == Counter(queued)
    for task, machine_id in taken:
        assert server.store.task(task).machine_id == machine_id


def _claim_all(data_dir, machine_id, start, found):
    with ServerStore(data_dir) as store:
        start.wait()
        while (task := store.assign_next(machine_id)) is not None:
            found.put(task.id)
        found.put(None)


def test_processes_on_one_database_never_share_a_task(tmp_path):
    context = multiprocessing.get_context("spawn")
    with ServerStore(tmp_path) as store:
        machines = [store.register_machine(f"m{n}").id for n in range(3)]
        queued = [store.queue_task(f"t{n}", [{"Path": LFN}], {}) for n in range(60)]
        start, found = context.Barrier(3), context.Queue()
        workers = [context.Process(target=_claim_all, args=(tmp_path, m, start, found)) for m in machines]
        for worker in workers:
            worker.start()
        taken, ended = [], 0
        while ended < len(workers):
            item = found.get(timeout=120)
            ended += item is None
            taken += [] if item is None else [item]
        for worker in workers:
            worker.join()
        assert Counter(taken) == Counter(queued)


def test_a_killed_server_remembers_what_it_told(tmp_path):
    with running_server(tmp_path) as server:
        machine = server.store.register_machine("m")
        for name in ("first", "second"):
            server.store.queue_task(name, [{"Path": LFN}], {})
        first = server.fetch(*machine).json()["ID"]
        assert server.upload(first, machine.secret, "a.png", PNG, "1", key="k").status_code == 201
        server.process.kill()
        server.process.wait()
        process, url = start_server(tmp_path)
        try:
            server.url = url
            assert server.store.task(first).status is TaskStatus.TRAINING
            assert server.upload(first, machine.secret, "a.png", PNG, "1", key="k").headers["Idempotent-Replayed"]
            assert server.fetch(*machine).json()["ID"] != first
            assert server.fetch(*machine).status_code == 404
        finally:
            assert stop_server(process) == 0


def test_a_full_disk_is_507_and_leaves_nothing(tmp_path):
    with running_server(tmp_path) as server:
        machine = server.store.register_machine("m")
        server.store.queue_task("t", [{"Path": LFN}], {})
        task = server.fetch(*machine).json()["ID"]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))  # no file may grow larger
        answer = server.upload(task, machine.secret, "large.log", bytes(5_000_000))
        assert (answer.status_code, answer.text) == (507, "the server's disk is full")
        assert list(server.store.file_dir.rglob("*")) == []
        assert server.upload(task, machine.secret, "small.log", bytes(1000)).status_code == 201
        assert [result.file_name for result in server.store.results(task)] == ["small.log"]


def test_one_server_for_each_directory_and_port(tmp_path):
    with running_server(tmp_path / "a") as server:
        port = server.url.rsplit(":", 1)[1]
        for data_dir, port_asked, reason in ((tmp_path / "a", "0", "another server"), (tmp_path / "b", port, "in use")):
            command = [sys.executable, "-m", "pidml.server", "--data-dir", str(data_dir), "--port", port_asked]
            second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert second.returncode == 1
            assert reason in second.stderr
            assert "Traceback" not in second.stderr
        machine = server.store.register_machine("m")
        assert server.fetch(*machine).status_code == 404


def test_the_address_is_in_server_json_while_it_runs(tmp_path):
    with running_server(tmp_path) as server:
        told = json.loads((tmp_path / "server.json").read_text())
        assert told["url"] == server.url
        assert told["pid"] == server.process.pid
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
    assert not (tmp_path / "server.json").exists()
