"""The embedded GRID over real HTTP: whole files, ranges, checksums, and what must not be reachable."""

import hashlib
import http.client
import os

import pytest
import requests
from support.server_process import running_server

CONTENT = bytes(range(256)) * 10_000
LFN = "/alice/sim/2026/LHC26sandbox/0/560001/AOD/001/AO2D.root"


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    path = root / "grid" / LFN.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    (root / "secret.root").write_bytes(b"secret")
    (root / "grid" / "link.root").symlink_to(root / "secret.root")
    (root / "grid" / "loop.root").symlink_to(root / "grid" / "loop.root")
    (root / "grid" / "empty.root").write_bytes(b"")
    with running_server(root / "server", grid_dir=root / "grid") as server:
        server.root = root
        yield server


def _raw(server, target, method="GET", **headers):
    """Send a request whose target no library tidies up."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


@pytest.mark.parametrize("separator", ["/grid", "/grid/"])
def test_a_file_comes_whole_with_length_and_checksum(grid, separator):
    answer = requests.get(grid.url + separator + LFN, timeout=30)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.headers["X-Checksum-Sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_head_tells_the_same_without_the_content(grid):
    answer = requests.head(f"{grid.url}/grid{LFN}", timeout=30)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["X-Checksum-Sha256"] == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("asked", "start", "end"), [("0-0", 0, 1), ("1000000-", 1_000_000, None), ("-7", -7, None), ("5-99999999", 5, None)]
)
def test_ranges(grid, asked, start, end):
    answer = requests.get(f"{grid.url}/grid{LFN}", headers={"Range": f"bytes={asked}"}, timeout=30)
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:end]
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["X-Checksum-Sha256"] == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=99999999-", 416),
        ("bytes=9-3", 400),
        ("chunks=1-2", 400),
        ("bytes", 400),
        ("bytes=" + "9" * 5000 + "-", 416),
    ],
)
def test_ranges_that_cannot_be(grid, asked, status):
    answer = requests.get(f"{grid.url}/grid{LFN}", headers={"Range": asked}, timeout=30)
    assert answer.status_code in (status, 400)


def test_a_range_of_a_changed_file_gives_the_whole_file(grid):
    answer = requests.get(
        f"{grid.url}/grid{LFN}", headers={"Range": "bytes=5-", "If-Range": '"of another version"'}, timeout=30
    )
    assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize(
    "target",
    [
        "/grid/../secret.root",
        "/grid/alice/../../secret.root",
        "/grid/%2e%2e/secret.root",
        "/grid/alice/%2e%2e%2f%2e%2e%2fsecret.root",
        "/grid/..%5csecret.root",
        "/grid//etc/passwd",
        "/grid/alice//sim",
        "/grid/./alice",
        "/grid/a%00b",
        "/grid/a%0ab",
        "/grid/link.root",
        "/grid/loop.root",
        "/grid/alice",
        "/grid/",
        "/grid/" + "x" * 5_000,
        "/grid/" + "x/" * 5_000 + "y",
        "/grid/%ff%fe",
    ],
)
def test_nothing_else_is_reachable(grid, target):
    for method in ("GET", "HEAD"):
        status, body = _raw(grid, target, method)
        assert status in (400, 404)
        assert b"secret" not in body


def test_an_endless_target_is_refused(grid):
    assert _raw(grid, "/grid/" + "x" * 60_000)[0] in (400, 404)


def test_files_are_only_read(grid):
    for method in ("PUT", "POST", "DELETE"):
        assert requests.request(method, f"{grid.url}/grid{LFN}", data=b"x", timeout=30).status_code == 405
    assert requests.get(f"{grid.url}/grid/empty.root", timeout=30).content == b""


def test_the_checksum_is_cached_until_the_file_changes(grid):
    path = grid.root / "grid" / "changing.root"
    url = f"{grid.url}/grid/changing.root"

    def told():
        return requests.head(url, timeout=30).headers["X-Checksum-Sha256"]

    path.write_bytes(b"first")
    os.utime(path, ns=(1, 1))
    assert told() == hashlib.sha256(b"first").hexdigest()
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))  # same size and time: the cache answers, without reading
    assert told() == hashlib.sha256(b"first").hexdigest()
    os.utime(path, ns=(2, 2))
    assert told() == hashlib.sha256(b"other").hexdigest()
