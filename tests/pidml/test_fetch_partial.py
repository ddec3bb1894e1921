"""Parts of downloads: kept over a kill, used for what they are parts of only, held by one process at a time."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.downloads import CONTENT, QUICK, SHA256, get, published, serve
from support.fault_http import Cut, Hold, Served, fault_server

from pidml.atomic import is_temporary
from pidml.errors import DownloadError
from pidml.fetch import FetchOptions, fetch
from pidml.fetch.partial import hold
from pidml.spec.data_sections import InputFile


@pytest.fixture
def server():
    with fault_server() as running:
        yield running


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "out" / "AO2D.root"


def test_a_part_of_one_address_is_not_used_for_another(server, destination):
    serve(server, faults=[Cut(1_000_000)])
    with pytest.raises(DownloadError):
        get(server, destination, FetchOptions(attempts=1, reserve=0))
    server.files["/b.root"] = Served(CONTENT[::-1])  # with the same ETag
    fetch(InputFile(path=f"{server.url}/b.root"), destination, QUICK)
    assert published(destination) == CONTENT[::-1]


def test_who_waited_for_a_file_that_was_given_up_gets_a_partial_file_of_its_own(destination):
    entered, held = threading.Event(), []

    def wait():
        entered.set()
        with hold(destination) as partial:
            held.append(partial.path.exists())

    with hold(destination):
        thread = threading.Thread(target=wait)
        thread.start()
        assert entered.wait(10)
        thread.join(0.2)  # long enough to come to the lock, on which it must still wait
        assert not held
    thread.join(10)
    assert held == [True]
    assert list(destination.parent.iterdir()) == []


def test_a_download_killed_in_the_middle_goes_on(server, destination):
    stop = Hold(2_000_000)
    serve(server, faults=[stop])
    code = (
        "import sys; from pidml.fetch import *; from pidml.spec.data_sections import InputFile\n"
        "fetch(InputFile(path=sys.argv[1]), sys.argv[2], FetchOptions(reserve=0))"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code, f"{server.url}/a.root", str(destination)], cwd=root) as process:
        assert stop.reached.wait(60)
        _wait_for_bytes(destination.parent, 1_000_000, process)
        os.kill(process.pid, signal.SIGKILL)
    stop.release.set()
    left = list(destination.parent.iterdir())
    assert left
    assert all(is_temporary(path) for path in left)
    receipt = get(server, destination)
    assert published(destination) == CONTENT
    assert 1_000_000 <= receipt.resumed_from < len(CONTENT)
    assert server.ranges() == [None, f"bytes={receipt.resumed_from}-"]


def _wait_for_bytes(folder, count, process):
    """Wait until the partial file holds so many bytes; the process tells nothing by itself."""
    pause = threading.Event()
    for _ in range(1000):
        if any(path.suffix == ".root" and path.stat().st_size >= count for path in folder.glob(".*")):
            return
        assert process.poll() is None
        pause.wait(0.02)
    pytest.fail("nothing was written")


def test_a_part_that_is_whole_but_not_renamed_is_taken_over(server, destination):
    serve(server, faults=[Cut(2_999_999)])
    with pytest.raises(DownloadError):
        get(server, destination, FetchOptions(attempts=1, reserve=0))
    partial = next(path for path in destination.parent.iterdir() if path.suffix == ".root")
    partial.write_bytes(CONTENT)
    assert get(server, destination).resumed_from == len(CONTENT) - 1
    assert published(destination) == CONTENT


def test_two_processes_fetch_one_file_once(server, destination):
    stop = Hold(1_000_000)
    serve(server, faults=[stop])
    code = (
        "import sys; from pidml.fetch import *; from pidml.spec.data_sections import InputFile\n"
        "print(fetch(InputFile(path=sys.argv[1]), sys.argv[2], FetchOptions(reserve=0)).method)"
    )
    command = [sys.executable, "-c", code, f"{server.url}/a.root", str(destination)]
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)]
    assert stop.reached.wait(60)
    stop.release.set()
    methods = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert methods == ["already there", "http"]
    assert published(destination) == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize(("stated", "taken_over"), [({}, 0), ({"checksum": f"sha256:{SHA256}"}, 1_000_000)])
def test_what_was_written_before_a_power_cut_counts_only_if_a_checksum_is_compared(
    server, destination, monkeypatch, stated, taken_over
):
    serve(server, faults=[Cut(1_000_000)])
    with pytest.raises(DownloadError):
        get(server, destination, FetchOptions(attempts=1, reserve=0))
    monkeypatch.setattr("pidml.fetch.partial.boot_id", lambda: "the next boot")
    assert get(server, destination, **stated).resumed_from == taken_over
    assert published(destination) == CONTENT
