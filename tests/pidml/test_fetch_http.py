"""Downloads over real HTTP from a server that fails in the ways servers fail."""

import hashlib
import logging
import zlib

import pytest
from support.downloads import CONTENT, QUICK, SHA256, get, published, serve
from support.fault_http import Corrupt, Cut, Hold, NoLength, Served, Status, WrongRange, fault_server
from support.server_process import running_server

from pidml.errors import ChecksumMismatch, DiskFull, DownloadError, InputMissing
from pidml.fetch import FetchOptions, fetch
from pidml.spec.data_sections import InputFile

LFN = "/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root"


@pytest.fixture
def server():
    with fault_server() as running:
        yield running


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "out" / "AO2D.root"


def test_a_file_is_downloaded_and_verified(server, destination):
    serve(server)
    steps = []
    receipt = fetch(
        InputFile(path=f"{server.url}/a.root", size=len(CONTENT), checksum=f"sha256:{SHA256}"),
        destination,
        QUICK,
        lambda done, total: steps.append((done, total)),
    )
    assert published(destination) == CONTENT
    assert (receipt.method, receipt.size, receipt.size_verified, receipt.attempts) == ("http", len(CONTENT), True, 1)
    assert receipt.checksums == (f"sha256:{SHA256}",)
    assert receipt.source == f"{server.url}/a.root"
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_there_is_verified_and_not_fetched_again(server, destination):
    serve(server)
    get(server, destination)
    receipt = get(server, destination, checksum=f"sha256:{SHA256}")
    assert receipt.method == "already there"
    assert receipt.checksum_verified
    assert len(server.requests) == 1


def test_a_wrong_file_that_is_there_is_replaced(server, destination):
    serve(server)
    destination.parent.mkdir()
    destination.write_bytes(b"something else")
    get(server, destination, checksum=f"sha256:{SHA256}")
    assert published(destination) == CONTENT


def test_cut_connections_are_resumed_where_they_broke_off(server, destination):
    serve(server, faults=[Cut(1_000_000), Cut(500_000), Status(500)])
    receipt = get(server, destination)
    assert published(destination) == CONTENT
    assert receipt.attempts == 4
    assert receipt.resumed_from == 1_500_000
    assert server.ranges() == [None, "bytes=1000000-", "bytes=1500000-", "bytes=1500000-"]
    assert server.requests[1][2]["If-Range"] == '"v1"'


@pytest.mark.parametrize("code", [500, 502, 503, 504, 408, 425, 429])
def test_passing_refusals_are_tried_again(server, destination, code):
    serve(server, faults=[Status(code), Status(code)])
    assert get(server, destination).attempts == 3
    assert published(destination) == CONTENT


def test_retry_after_is_followed_up_to_the_longest_pause(server, destination):
    serve(server, faults=[Status(429, {"Retry-After": "1"})])
    assert get(server, destination, FetchOptions(backoff=0.01, max_backoff=0.3, reserve=0)).seconds >= 0.3


@pytest.mark.parametrize(
    ("code", "error"), [(404, InputMissing), (410, InputMissing), (401, DownloadError), (403, DownloadError)]
)
def test_lasting_refusals_are_not_tried_again(server, destination, code, error):
    serve(server, faults=[Status(code)])
    with pytest.raises(error, match=str(code)) as caught:
        get(server, destination)
    assert type(caught.value) is error
    assert len(server.requests) == 1
    assert list(destination.parent.iterdir()) == []


def test_giving_up_says_what_how_often_and_why(server, destination):
    serve(server, faults=[Status(503)] * 5)
    with pytest.raises(DownloadError, match=r"a\.root could not be fetched in 5 attempts.*answers 503"):
        get(server, destination)
    assert len(server.requests) == 5


def test_a_server_that_ignores_ranges_sends_all_again(server, destination):
    serve(server, ranges=False, faults=[Cut(1_000_000)])
    receipt = get(server, destination)
    assert published(destination) == CONTENT
    assert receipt.resumed_from == 0


def test_another_range_than_asked_for_is_refused(server, destination):
    serve(server, faults=[Cut(1_000_000), WrongRange()])
    receipt = get(server, destination)
    assert published(destination) == CONTENT
    assert (receipt.attempts, receipt.resumed_from) == (3, 0)


@pytest.mark.parametrize("honours", [True, False])
def test_content_that_changes_between_attempts_is_never_mixed(server, destination, honours):
    served = serve(server, honours_if_range=honours, faults=[Cut(1_000_000)])
    with pytest.raises(DownloadError):
        get(server, destination, FetchOptions(attempts=1, reserve=0))
    served.content, served.etag = CONTENT[::-1], '"v2"'
    get(server, destination)
    assert published(destination) == CONTENT[::-1]


def test_without_any_mark_of_version_nothing_is_resumed(server, destination):
    served = serve(server, etag=None, faults=[Cut(1_000_000)])
    with pytest.raises(DownloadError):
        get(server, destination, FetchOptions(attempts=1, reserve=0))
    served.content = CONTENT[::-1]
    get(server, destination)
    assert published(destination) == CONTENT[::-1]
    assert server.ranges() == [None, None]


def test_the_date_of_the_last_change_serves_as_mark(server, destination):
    serve(server, etag='W/"weak"', modified=1e9, faults=[Cut(1_000_000)])
    assert get(server, destination).resumed_from == 1_000_000
    assert server.requests[1][2]["If-Range"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert published(destination) == CONTENT


def test_a_wrong_checksum_is_discarded_and_fetched_once_more(server, destination):
    serve(server, faults=[Corrupt(12345)])
    receipt = get(server, destination, checksum=f"sha256:{SHA256}")
    assert published(destination) == CONTENT
    assert receipt.attempts == 2
    assert server.ranges() == [None, None]


def test_a_lasting_wrong_checksum_is_named_and_nothing_stays(server, destination):
    serve(server)
    with pytest.raises(ChecksumMismatch, match=f"md5 {hashlib.md5(CONTENT).hexdigest()}, {'0' * 32} is stated"):
        get(server, destination, checksum=f"md5:{'0' * 32}")
    assert len(server.requests) == 2
    assert list(destination.parent.iterdir()) == []


def test_the_checksum_that_the_server_states_is_verified(server, destination):
    serve(server, checksum_header=True, faults=[Corrupt(7)])
    receipt = get(server, destination, checksum=f"adler32:{zlib.adler32(CONTENT):08x}")
    assert receipt.attempts == 2
    assert set(receipt.checksums) == {f"sha256:{SHA256}", f"adler32:{zlib.adler32(CONTENT):08x}"}


def test_another_size_than_the_catalogue_says_is_refused_before_the_body(server, destination):
    stop = Hold(0)
    serve(server, faults=[stop, stop])
    with pytest.raises(ChecksumMismatch, match=rf"has {len(CONTENT)} B, the catalogue says 17 B"):
        get(server, destination, size=17)
    stop.release.set()
    assert not destination.exists()


def test_more_bytes_than_the_catalogue_says_are_not_taken(server, destination):
    serve(server, faults=[NoLength(60_000_000)])
    steps = []
    file = InputFile(path=f"{server.url}/a.root", size=len(CONTENT))
    assert fetch(file, destination, QUICK, lambda done, total: steps.append(done)).attempts == 2
    assert published(destination) == CONTENT
    assert max(steps) < 10_000_000


def test_an_unannounced_end_is_noticed_by_the_size_and_resumed(server, destination):
    serve(server, faults=[NoLength(-500_000)])
    assert get(server, destination, size=len(CONTENT)).resumed_from == 2_500_000
    assert published(destination) == CONTENT


def test_a_silent_server_is_left_after_the_read_timeout(server, destination):
    stop = Hold(1_000_000)
    serve(server, faults=[stop])
    try:
        assert get(server, destination, FetchOptions(backoff=0.01, read_timeout=0.3, reserve=0)).attempts == 2
    finally:
        stop.release.set()
    assert published(destination) == CONTENT


def test_a_server_that_is_gone_is_a_named_error(server, destination):
    with pytest.raises(DownloadError, match="could not be fetched in 2 attempts"):
        fetch(InputFile(path="http://127.0.0.1:9/a.root"), destination, FetchOptions(attempts=2, backoff=0.01))


def test_too_little_disk_space_is_said_before_the_body(server, destination):
    serve(server)
    with pytest.raises(DiskFull, match=r"a\.root needs 3,000,000 B and .* has [\d,]+ B"):
        get(server, destination, FetchOptions(reserve=1 << 60))
    assert not destination.exists()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a.root", "gopher://127.0.0.1/"])
def test_redirects_to_another_scheme_are_refused(server, destination, target):
    serve(server, faults=[Status(302, {"Location": target})])
    with pytest.raises(DownloadError, match="redirects from http to"):
        get(server, destination)
    assert list(destination.parent.iterdir()) == []


def test_redirects_within_the_scheme_are_followed_and_loops_end(server, destination):
    serve(server)
    server.files["/b.root"] = Served(b"", faults=[Status(307, {"Location": "/a.root"})])
    fetch(InputFile(path=f"{server.url}/b.root"), destination, QUICK)
    assert published(destination) == CONTENT
    destination.unlink()
    server.files["/loop"] = Served(b"", faults=[Status(302, {"Location": "/loop"})] * 50)
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        fetch(InputFile(path=f"{server.url}/loop"), destination, QUICK)


def test_credentials_in_an_address_appear_nowhere(server, destination, caplog):
    caplog.set_level(logging.DEBUG)
    serve(server, faults=[Status(500), Status(403)])
    address = f"http://me:hunter2@127.0.0.1:{server.port}/a.root?X-Amz-Signature=s3cr3t"
    with pytest.raises(DownloadError) as caught:
        fetch(InputFile(path=address), destination, QUICK)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("pidml")]
    serve(server, faults=[Cut(1_000_000)])
    with pytest.raises(DownloadError):
        fetch(InputFile(path=address), destination, FetchOptions(attempts=1, reserve=0))
    files = b"".join(path.read_bytes() for path in destination.parent.iterdir() if path.suffix == ".json")
    receipt = fetch(InputFile(path=address), destination, QUICK)
    seen = f"{caught.value} {ours} {receipt} {files!r}"
    assert "a.root" in seen
    assert files
    assert "hunter2" not in seen
    assert "s3cr3t" not in seen
    assert server.requests[0][2]["Authorization"].startswith("Basic ")


def test_lfns_come_from_the_grid_that_is_named(server, destination):
    server.files[f"/grid{LFN}"] = Served(CONTENT, checksum_header=True)
    options = FetchOptions.from_env({"PIDML_GRID": f"{server.url}/grid/"})
    receipt = fetch(InputFile(path=f"alien://{LFN}", size=len(CONTENT)), destination, options)
    assert published(destination) == CONTENT
    assert receipt.checksums == (f"sha256:{SHA256}",)


def test_the_embedded_servers_grid_is_resumed_and_verified(destination, tmp_path):
    stored = tmp_path / "grid" / LFN.lstrip("/")
    stored.parent.mkdir(parents=True)
    stored.write_bytes(CONTENT)
    with running_server(tmp_path / "server", grid_dir=tmp_path / "grid") as embedded:
        options = FetchOptions.from_env({"PIDML_GRID": f"{embedded.url}/grid"})
        with pytest.raises(InputMissing):
            fetch(InputFile(path=LFN.replace("001", "002")), destination, options)

        def stop(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch(InputFile(path=LFN), destination, options, stop)
        receipt = fetch(InputFile(path=LFN, size=len(CONTENT)), destination, options)
    assert published(destination) == CONTENT
    assert receipt.resumed_from == 1 << 20
    assert receipt.checksums == (f"sha256:{SHA256}",)


def test_a_failed_replica_is_replaced_by_the_next(server, destination, tmp_path):
    serve(server)
    server.files["/mirror/a.root"] = Served(b"", faults=[Status(503)])
    rules = f"{server.url}/mirror/={server.url}/gone/ {server.url}/"
    options = FetchOptions.from_env({"PIDML_FETCH_FALLBACKS": rules, "PIDML_FETCH_BACKOFF": "0.01"})
    receipt = fetch(InputFile(path=f"{server.url}/mirror/a.root"), destination, options)
    assert published(destination) == CONTENT
    assert (receipt.source, receipt.attempts) == (f"{server.url}/a.root", 3)
