"""Downloads from a real XRootD server and from an S3-compatible one, each a process of its own on loopback.

XRootD: Debian's ``xrootd-server``; it listens on every interface, so it runs in a network namespace, and so do the
downloads. S3: ``moto_server`` (pip install 'moto[server]'), found on the PATH or through PIDML_TEST_MOTO_SERVER.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from pidml.errors import ToolMissing
from pidml.fetch import FetchOptions, fetch
from pidml.spec.data_sections import InputFile

ROOT = Path(__file__).parents[2]
CONTENT = random.Random(2).randbytes(20_000_000)
ADLER32 = f"adler32:{zlib.adler32(CONTENT):08x}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
#: Fetches argv[1], checksum argv[3] (or none), into argv[2]; a fourth argument kills the process after so many bytes.
CLIENT = """
import json, os, signal, sys
from pidml.errors import PidmlError
from pidml.fetch import *
from pidml.spec.data_sections import InputFile
path, destination, checksum, kill = sys.argv[1], sys.argv[2], sys.argv[3] or None, int(sys.argv[4])
def progress(done, total):
    if 0 < kill <= done:
        os.kill(os.getpid(), signal.SIGKILL)
options = FetchOptions(attempts=2, backoff=0.01, connect_timeout=5, read_timeout=5, reserve=0)
try:
    print(json.dumps(fetch(InputFile(path=path, checksum=checksum), destination, options, progress).as_json()))
except PidmlError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
"""


def run_client(prefix, environment, path, destination, checksum="", kill=0):
    """Fetch in a process of its own; return the receipt, the error, or ``None`` if it was killed."""
    command = [*prefix, sys.executable, "-c", CLIENT, path, str(destination), checksum, str(kill)]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    if kill and result.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return None
    assert result.returncode == 0, result.stderr
    assert "S3CR3T" not in result.stdout + result.stderr
    return json.loads(result.stdout)


class Server:
    """A server under test: where it is, how to reach it, how to change what it serves."""

    def __init__(self, base, prefix, environment, put):
        self.prefix, self.put = prefix, put
        self.fetch = lambda name, destination, **more: run_client(
            prefix, environment, f"{base}/{name}", destination, **more
        )


XROOTD_CONFIG = """
all.export /store
oss.localroot {root}
xrd.port 1094
xrootd.chksum max 2 adler32
all.adminpath {admin}
all.pidpath {admin}
"""


@pytest.fixture(scope="module")
def xrootd():
    if not shutil.which("xrootd") or os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs Debian's xrootd-server, unshare and root for a network namespace")
    folder = Path(f"/tmp/pidml-xrootd-{os.getpid()}")  # readable for the user that the server runs as
    store = folder / "root" / "store"
    store.mkdir(parents=True)
    (folder / "admin").mkdir()
    (folder / "xrootd.cfg").write_text(XROOTD_CONFIG.format(root=folder / "root", admin=folder / "admin"))
    subprocess.run(["chown", "-R", "nobody", folder], check=True)
    script = (
        "ip link set lo up && exec setpriv --reuid=65534 --regid=65534 --clear-groups "
        f"xrootd -c {folder}/xrootd.cfg -n test"
    )
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        for line in process.stdout:
            if "initialization completed" in line and "xrootd test@" in line:
                break
        else:
            pytest.skip("the XRootD server does not start in a network namespace here")
        prefix = ["nsenter", "--target", str(process.pid), "--net"]

        def put(name, content):
            (store / name).write_bytes(content)
            os.utime(store / name, (len(content), sum(content[:100])))  # another time for another content

        yield Server("root://me:S3CR3T@127.0.0.1//store", prefix, {}, put)
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    beside = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    program = os.environ.get("PIDML_TEST_MOTO_SERVER") or shutil.which("moto_server", path=beside)
    if not program:
        pytest.skip("needs moto_server (pip install 'moto[server]'), on the PATH or in PIDML_TEST_MOTO_SERVER")
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "S3CR3T",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = _s3_client(environment)
        client.create_bucket(Bucket="bucket")
        yield Server(
            "s3://bucket/store",
            [],
            environment,
            lambda name, content: client.put_object(Bucket="bucket", Key=f"store/{name}", Body=content),
        )
    finally:
        process.kill()
        process.communicate()


def _s3_client(environment):
    import botocore.session

    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )


@pytest.fixture(params=["xrootd", "s3"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.mark.slow
def test_a_file_is_downloaded_and_verified(server, tmp_path):
    server.put("a.root", CONTENT)
    receipt = server.fetch("a.root", tmp_path / "out" / "a.root", checksum=SHA256)
    assert (tmp_path / "out" / "a.root").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.root"]
    assert (receipt["method"], receipt["checksums"], receipt["attempts"]) == ("fsspec", [SHA256], 1)


@pytest.mark.slow
def test_xrootds_own_checksum_is_verified(xrootd, tmp_path):
    xrootd.put("b.root", CONTENT)
    assert xrootd.fetch("b.root", tmp_path / "b.root")["checksums"] == [ADLER32]


@pytest.mark.slow
def test_a_missing_file_is_named_at_once(server, tmp_path):
    answer = server.fetch("absent.root", tmp_path / "a.root")
    assert answer["error"] == "InputMissing", answer
    assert "absent.root does not exist" in answer["text"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_download_goes_on(server, tmp_path):
    server.put("c.root", CONTENT)
    assert server.fetch("c.root", tmp_path / "c.root", kill=8_000_000) is None
    assert not (tmp_path / "c.root").exists()
    receipt = server.fetch("c.root", tmp_path / "c.root")
    assert (tmp_path / "c.root").read_bytes() == CONTENT
    assert 8_000_000 <= receipt["resumed_from"] < len(CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["c.root"]


@pytest.mark.slow
def test_content_that_changes_meanwhile_is_never_mixed(server, tmp_path):
    server.put("d.root", CONTENT)
    assert server.fetch("d.root", tmp_path / "d.root", kill=8_000_000) is None
    server.put("d.root", CONTENT[::-1])
    receipt = server.fetch("d.root", tmp_path / "d.root")
    assert (tmp_path / "d.root").read_bytes() == CONTENT[::-1]
    assert receipt["resumed_from"] == 0


@pytest.mark.slow
def test_a_wrong_checksum_is_named(server, tmp_path):
    server.put("e.root", CONTENT)
    answer = server.fetch("e.root", tmp_path / "e.root", checksum=f"md5:{'0' * 32}")
    assert answer["error"] == "ChecksumMismatch", answer
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_the_server_does_not_export_is_refused(xrootd, tmp_path):
    answer = run_client(xrootd.prefix, {}, "root://127.0.0.1//etc/passwd", tmp_path / "a.root")
    assert answer["error"] == "DownloadError"
    assert "is refused" in answer["text"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_server_that_is_gone_is_a_named_error(tmp_path):
    answer = run_client(
        [],
        {"XRD_CONNECTIONRETRY": "1", "XRD_CONNECTIONWINDOW": "2"},
        "root://127.0.0.1:9//store/a.root",
        tmp_path / "a.root",
    )
    assert answer["error"] == "DownloadError"
    assert "could not be fetched in 2 attempts" in answer["text"]


@pytest.mark.parametrize(("scheme", "module", "extra"), [("root", "fsspec_xrootd", "xrootd"), ("s3", "s3fs", "s3")])
def test_a_missing_package_is_named(scheme, module, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ToolMissing, match=module.replace("_", "-")) as caught:
        fetch(InputFile(path=f"{scheme}://host//a.root"), tmp_path / "a.root", FetchOptions())
    assert f"pidml[{extra}]" in str(caught.value)
