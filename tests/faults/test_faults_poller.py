"""Fault injection into real processes: kills, a failing network, a server that dies, a clock that jumps, a full disk.

Each campaign prints one JSON line of counts. PIDML_SOAK_SECONDS sets the length of the long ones (`make soak`).
"""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from support.campaign import Campaign
from support.fake_job import expected_results
from support.fault_proxy import Answer, Drop, Hang, LoseAnswer, Truncate, Twice, fault_proxy
from support.machine import running_machine
from support.server_process import stop_server

SOAK_SECONDS = float(os.environ.get("PIDML_SOAK_SECONDS", "1800"))
VICTIMS = [("poller",), ("job",), ("guard",), ("poller", "guard"), ("guard", "poller", "job"), ("poller",), ("job",)]


@pytest.fixture
def machine(tmp_path):
    with running_machine(tmp_path) as running:
        limits = replace(running.settings.limits, lives=10_000, attempts=10_000, retry=0.01, slow_wait=0.1)
        yield replace(running, settings=replace(running.settings, limits=limits, connect_seconds=2.0, read_seconds=0.5))
        stop_server(running.server.process)  # a campaign may have put another in the first one's place


def network_faults(seed: int, rate: float):
    """Return a chooser of faults that hit about every ``1 / rate``-th request."""
    source = random.Random(seed)
    page = b"<!DOCTYPE html><title>Application is not available</title>"
    faults = [
        *(Answer(status) for status in (500, 502, 503, 504, 408, 425)),
        Answer(429, {"Retry-After": "0"}),
        Answer(503, {"Content-Type": "text/html"}, page),
        Answer(200, {"Content-Type": "text/html"}, page),
        Answer(307, {"Location": "http://127.0.0.1:1/"}),
        *(LoseAnswer(), LoseAnswer(reset=True), Drop(), Drop(reset=True)),
        *(Truncate(0), Truncate(7), Hang(), Hang(forward=True), Twice(), Twice()),
    ]
    return lambda method, path: source.choice(faults) if source.random() < rate else None


@pytest.mark.slow
def test_fifty_kills_at_random_moments_lose_and_repeat_nothing(machine, tmp_path):
    campaign = Campaign(machine, tmp_path, {"steps": 4, "seconds": 0.1}, seed=1, tasks=machine.queue(1))
    begin = time.monotonic()
    campaign.run(lambda: campaign.wait(0.02), seconds=100)
    duration = time.monotonic() - begin  # of a job that nothing disturbs, on a machine that may be busy

    def inject():
        campaign.wait(campaign.random.uniform(0.0, 1.5 * duration))
        if sum(campaign.injected.values()) < 50:
            campaign.kill(*campaign.random.choice(VICTIMS))

    while sum(campaign.injected.values()) < 50:
        campaign.tasks += machine.queue(1)
        campaign.run(inject, seconds=200)
    assert campaign.audit()["faults"] >= 50


@pytest.mark.slow
def test_the_poller_killed_at_every_request_of_a_job(machine, tmp_path):
    """Killed before, and again after, the server has acted on each single request, the claim among them."""
    with fault_proxy(machine.server.url) as proxy:
        campaign = Campaign(machine.at(proxy.url), tmp_path, {"steps": 2}, seed=2, tasks=machine.queue(1))
        requests = {}

        def choose(method, path):
            number = requests[path] = requests.get(path, 0) + 1
            asked_for_more = path.endswith("training-task") and number > 3
            if path == "/" or number % 3 == 0 or asked_for_more:
                return None
            campaign.kill("poller", "guard", "job")
            return LoseAnswer() if number % 3 == 1 else Drop()

        proxy.choose = choose
        campaign.run(lambda: campaign.wait(0.05), seconds=200)
        proxy.choose = lambda method, path: None
        assert campaign.audit(proxy)["faults"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_a_network_that_fails_every_fourth_request(machine, tmp_path, seed):
    with fault_proxy(machine.server.url) as proxy:
        proxy.choose = network_faults(seed, 0.25)
        campaign = Campaign(machine.at(proxy.url), tmp_path, {"steps": 2}, seed, tasks=machine.queue(5))
        campaign.run(lambda: campaign.wait(0.1), seconds=280)
        assert campaign.audit(proxy)["faults"] >= 10


@pytest.mark.slow
def test_a_server_that_is_killed_and_stays_away(machine, tmp_path):
    campaign = Campaign(machine, tmp_path, {"steps": 3, "seconds": 0.3}, seed=5, tasks=machine.queue(3))

    def inject():
        campaign.wait(campaign.random.uniform(0.2, 1.0))
        if campaign.injected["server killed"] < 5:
            campaign.restart_server(away=campaign.random.uniform(0.1, 3.0))

    campaign.run(inject, seconds=200)
    campaign.audit()


@pytest.mark.slow
def test_a_clock_that_jumps(machine, tmp_path):
    campaign = Campaign(machine, tmp_path, {"steps": 3, "exit": 20, "fail_runs": 2}, seed=6, tasks=machine.queue(3))
    campaign.environment = {"CLOCK_JUMPS": "1"}
    campaign.run(lambda: campaign.wait(0.1), seconds=200)
    campaign.audit()


@pytest.mark.slow
def test_a_full_disk_is_waited_out(machine, tmp_path):
    """The store lies on a file system of 2 MB that somebody else fills up and empties again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a file system of its own needs mount: {mounted.stderr.decode().strip()}")
    try:
        small = replace(machine, settings=replace(machine.settings, store=disk / "store"))
        campaign = Campaign(small, tmp_path, {"steps": 3, "seconds": 0.2}, seed=7, tasks=machine.queue(3))
        ballast = disk / "ballast"

        def fill_for_a_while():
            with ballast.open("wb", buffering=0) as stream, suppress(OSError):
                while True:
                    stream.write(b"0" * 4096)
            campaign.injected["disk full"] += 1
            campaign.start()  # the first time, into a store that cannot even be made
            campaign.wait(1.5)
            ballast.unlink()

        def inject():
            campaign.wait(campaign.random.uniform(0.3, 0.8))
            if campaign.injected["disk full"] < 5:
                fill_for_a_while()

        fill_for_a_while()
        campaign.run(inject, seconds=200)
        campaign.audit()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_two_hundred_jobs_through_one_poller_memory_flat_overhead_small(machine, tmp_path):
    """Claim to start, and end to Completed, measured by the server's own clock around the job's."""
    patient = replace(machine, settings=replace(machine.settings, read_seconds=60.0))
    tasks = machine.queue(200)
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import json, resource, sys, time\n"
        "from pidml.poller.loop import poll\nfrom pidml.settings import Settings\n"
        "memory = []\n"
        "def resident():\n"
        "    with open('/proc/self/statm') as stream:\n"
        "        return int(stream.read().split()[1]) * resource.getpagesize()\n"
        "def command(job):\n"
        "    memory.append(resident())\n"
        "    return [sys.executable, '-I', '-S', '-c', 'import time; print(\"at\", time.time())']\n"
        "counts = poll(Settings.load(dotenv=None), drain=True, command=command)\n"
        "print(json.dumps({'memory': memory, 'completed': counts.completed}))\n"
    )
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(runner)], env=patient.environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.monotonic() - begin
    told = json.loads(done.stdout.splitlines()[-1])
    memory = told["memory"]
    before, after = [], []
    for task in tasks:
        history = {change.status.name: change.moment for change in machine.server.store.history(task)}
        log = (machine.settings.store / "jobs" / str(task) / "law.log").read_text()
        ran = float(log.rpartition("at ")[2])
        before.append(ran - history["TRAINING"])
        after.append(history["COMPLETED"] - ran)
    books = {
        "jobs": told["completed"],
        "seconds": round(seconds, 1),
        "claim_to_start_s": {"median": sorted(before)[100], "max": max(before)},
        "end_to_completed_s": {"median": sorted(after)[100], "max": max(after)},
        "memory_growth_bytes": memory[-1] - memory[20],
    }
    print(books)
    assert told["completed"] == 200
    assert max(before) + max(after) < 3.0
    assert memory[-1] - memory[20] < 4 * 1024 * 1024


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak_everything_at_once(machine, tmp_path):
    """Kills, network faults and a dying server together, for PIDML_SOAK_SECONDS."""
    end = time.monotonic() + SOAK_SECONDS
    with fault_proxy(machine.server.url) as proxy:
        proxy.choose = network_faults(8, 0.1)
        plan = {"steps": 4, "seconds": 0.2}
        campaign = Campaign(machine.at(proxy.url), tmp_path, plan, seed=int(time.time()), tasks=machine.queue(5))
        print(f"seed {campaign.seed}")
        next_outage = time.monotonic() + 60

        def inject():
            nonlocal next_outage
            campaign.wait(campaign.random.uniform(0.0, 4.0))
            campaign.kill(*campaign.random.choice(VICTIMS))
            if time.monotonic() > next_outage:
                campaign.restart_server(away=campaign.random.uniform(1, 120))
                next_outage = time.monotonic() + campaign.random.uniform(60, 600)

        while time.monotonic() < end:
            campaign.tasks += machine.queue(5)
            campaign.run(inject, seconds=3600)
        proxy.choose = lambda method, path: None
        campaign.audit(proxy)
        assert len(expected_results(1, 4)) * len(campaign.tasks) == campaign.report()["results"]
