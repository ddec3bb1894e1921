"""Local files: linked or copied, verified, never followed out of the allowed folders."""

import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from pidml.errors import ChecksumMismatch, DiskFull, DownloadError, InputMissing, PathRefused, SpecError, ToolMissing
from pidml.fetch import FetchOptions, InputsObtained, fetch, missing_allowed
from pidml.fetch import checksum as checksums
from pidml.spec.data_sections import InputFile

CONTENT = bytes(range(256)) * 1000
OPTIONS = FetchOptions(backoff=0.01, reserve=0)
LFN = "/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root"


@pytest.fixture
def original(tmp_path):
    path = tmp_path / "in" / "a.root"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_on_one_file_system_the_file_is_linked(original, tmp_path, form):
    destination = tmp_path / "out" / "b.root"
    receipt = fetch(InputFile(path=form.format(original), size=len(CONTENT)), destination, OPTIONS)
    assert destination.samefile(original)
    assert not destination.is_symlink()
    assert names(destination.parent) == ["b.root"]
    assert (receipt.method, receipt.source, receipt.checksum_verified) == ("file", str(original), False)


def test_a_link_is_never_made_to_a_symbolic_link(original, tmp_path):
    link = tmp_path / "link.root"
    link.symlink_to(original)
    destination = tmp_path / "b.root"
    fetch(InputFile(path=str(link)), destination, OPTIONS)
    assert not destination.is_symlink()
    original.unlink()
    assert destination.read_bytes() == CONTENT


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system at /dev/shm")
def test_across_file_systems_the_file_is_copied(original, tmp_path):
    destination = Path("/dev/shm") / f"pidml-{os.getpid()}-{tmp_path.name}" / "b.root"
    if destination.parent.parent.stat().st_dev == original.stat().st_dev:
        pytest.skip("/dev/shm is on the same file system")
    try:
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        fetch(InputFile(path=str(original), checksum=f"sha256:{sha256}"), destination, OPTIONS)
        assert destination.stat().st_ino != original.stat().st_ino
        assert destination.read_bytes() == CONTENT
        assert names(destination.parent) == ["b.root"]
        with pytest.raises(DiskFull, match=r"a\.root needs 256,000 B"):
            fetch(InputFile(path=str(original)), destination.with_name("c.root"), FetchOptions(reserve=1 << 60))
    finally:
        destination.unlink(missing_ok=True)
        destination.parent.rmdir()


def test_a_full_disk_is_named_and_leaves_nothing(original, tmp_path):
    """The real thing: a file system of 100 KiB, mounted in a namespace of its own."""
    small = tmp_path / "small"
    small.mkdir()
    code = (
        "import sys; from pidml.fetch import *; from pidml.spec.data_sections import InputFile\n"
        "from pidml.errors import DiskFull\n"
        "import pidml.fetch.local as local\n"
        "local.require_space = lambda *arguments: None\n"  # as if another process took the space meanwhile
        "try: fetch(InputFile(path=sys.argv[1]), sys.argv[2] + '/b.root', FetchOptions(reserve=0))\n"
        "except DiskFull as error: print(error)\n"
        "import os; print('left', os.listdir(sys.argv[2]))"
    )
    script = f'mount -t tmpfs -o size=100k none "{small}" && exec "{sys.executable}" -c "$CODE" "{original}" "{small}"'
    result = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        env={**os.environ, "CODE": code},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in result.stderr or "mount:" in result.stderr:
        pytest.skip(f"no mount namespace to be had: {result.stderr.strip()}")
    assert "[P201] no space left" in result.stdout, result.stderr
    assert "left []" in result.stdout


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputMissing, match=r"there is no file .*absent\.root"):
        fetch(InputFile(path=str(tmp_path / "absent.root")), tmp_path / "b.root", OPTIONS)
    assert names(tmp_path) == []


def test_what_is_not_a_regular_file_is_refused(tmp_path):
    fifo = tmp_path / "fifo.root"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/zero")):
        with pytest.raises(PathRefused, match="is not a regular file"):
            fetch(InputFile(path=str(path)), tmp_path / "out" / "b.root", OPTIONS)


@pytest.mark.parametrize("through", ["file", "folder"])
def test_links_out_of_the_allowed_folders_are_refused(original, tmp_path, through):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    if through == "file":
        (allowed / "a.root").symlink_to(original)
        path = allowed / "a.root"
    else:
        (allowed / "in").symlink_to(original.parent)
        path = allowed / "in" / "a.root"
    with pytest.raises(PathRefused, match="leads outside the folders"):
        fetch(InputFile(path=str(path)), tmp_path / "b.root", FetchOptions(file_roots=(allowed,)))
    assert not (tmp_path / "b.root").exists()


def test_a_percent_encoded_path_is_held_to_the_same_folders(original, tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "in").symlink_to(original.parent)
    with pytest.raises(PathRefused, match="leads outside the folders"):
        fetch(InputFile(path=f"file://{allowed}/i%6e/a.root"), tmp_path / "b.root", FetchOptions(file_roots=(allowed,)))


def test_a_local_grid_serves_lfns_and_nothing_beside_it(original, tmp_path):
    grid = tmp_path / "grid"
    stored = grid / LFN.lstrip("/")
    stored.parent.mkdir(parents=True)
    stored.symlink_to(original)
    options = FetchOptions.from_env({"PIDML_GRID": str(grid)})
    with pytest.raises(PathRefused, match="leads outside"):
        fetch(InputFile(path=LFN), tmp_path / "b.root", options)
    stored.unlink()
    with pytest.raises(InputMissing):
        fetch(InputFile(path=LFN), tmp_path / "b.root", options)
    stored.write_bytes(CONTENT)
    assert fetch(InputFile(path=LFN), tmp_path / "b.root", options).source == str(stored)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_checksums_are_compared(original, tmp_path, algorithm):
    right = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    assert fetch(InputFile(path=str(original), checksum=right), tmp_path / "b.root", OPTIONS).checksums == (right,)
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    with pytest.raises(ChecksumMismatch, match=algorithm):
        fetch(InputFile(path=str(original), checksum=wrong), tmp_path / "c.root", OPTIONS)
    assert names(tmp_path) == ["b.root", "in"]


def test_adler32_is_compared_with_or_without_leading_zeros(tmp_path):
    path = tmp_path / "a.root"
    path.write_bytes(b"abc")
    assert zlib.adler32(b"abc") == 0x24D0127
    for digits in ("24d0127", "024d0127"):
        assert checksums.verify(path, 3, (f"adler32:{digits}",), "a") == ("adler32:024d0127",)


def test_crc32c_is_computed_or_its_package_named(tmp_path, monkeypatch):
    """The package is a stand-in with the interface of crc32c; the algorithm itself is Castagnoli's, bit by bit."""

    def crc32c(data, value=0):
        value ^= 0xFFFFFFFF
        for byte in data:
            value ^= byte
            for _ in range(8):
                value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        return value ^ 0xFFFFFFFF

    path = tmp_path / "a.root"
    path.write_bytes(b"123456789")
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    monkeypatch.setitem(sys.modules, "crc32c", None)
    with pytest.raises(ToolMissing, match="crc32c"):
        checksums.verify(path, None, ("crc32c:e3069283",), "a")
    monkeypatch.setitem(sys.modules, "crc32c", type("Module", (), {"crc32c": staticmethod(crc32c)}))
    assert checksums.verify(path, None, ("crc32c:e3069283",), "a") == ("crc32c:e3069283",)


@pytest.mark.parametrize("checksum", ["md5:abc", "sha256:" + "0" * 63, "adler32:123456789"])
def test_malformed_checksums_are_named_before_anything_is_fetched(original, tmp_path, checksum):
    with pytest.raises(SpecError, match="malformed"):
        fetch(InputFile(path=str(original), checksum=checksum), tmp_path / "out" / "b.root", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_an_unreadable_file_is_named(original, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *arguments: False)  # tests may run as root, who can read everything
    with pytest.raises(DownloadError, match="may not be read by this user"):
        fetch(InputFile(path=str(original)), tmp_path / "b.root", OPTIONS)


def test_sandbox_files_are_simulated_on_the_spot(tmp_path):
    import uproot

    lfn = "/alice/sim/2026/LHC26sandbox/0/1/AOD/001/AO2D.root"
    receipt = fetch(InputFile(path=lfn), tmp_path / "out" / "AO2D.root", OPTIONS)
    assert (receipt.method, receipt.source) == ("sandbox", lfn)
    assert names(tmp_path / "out") == ["AO2D.root"]
    with uproot.open(tmp_path / "out" / "AO2D.root") as file:
        assert sum(key.startswith("DF_") and "/" not in key for key in file.keys()) == 4  # noqa: SIM118
    with pytest.raises(InputMissing, match="sandbox GRID has no file"):
        fetch(InputFile(path=lfn.replace("/001/", "/000/")), tmp_path / "b.root", OPTIONS)


def test_importing_costs_neither_requests_nor_fsspec():
    code = "import sys, pidml.fetch; print([m for m in ('requests', 'fsspec', 'uproot', 'torch') if m in sys.modules])"
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("require", "total", "obtained", "allowed"),
    [
        ("all", 3, 3, True),
        ("all", 3, 2, False),
        (0.9, 10, 9, True),
        (0.9, 10, 8, False),
        (0.7, 10, 7, True),
        (0.5, 3, 1, False),
        (0.5, 3, 2, True),
        (0.01, 5, 0, False),
        (0.01, 5, 1, True),
        (1.0, 5, 4, False),
        (1.0, 5, 5, True),
    ],
)
def test_the_rule_for_missing_files(require, total, obtained, allowed):
    assert missing_allowed(require, total, obtained) is allowed


def test_numbers_out_of_range_are_errors():
    for require, total, obtained in [("all", 0, 0), (0.5, 3, 4), (0.5, 3, -1), (0.0, 3, 1), (1.5, 3, 1)]:
        with pytest.raises(ValueError, match=r"allowed|at least"):
            missing_allowed(require, total, obtained)


def test_missing_files_are_recorded():
    record = InputsObtained(0.5, 4, {"/alice/b": "does not exist", "/alice/a": "cut"})
    assert record.enough
    assert record.sentence() == "2 of 4 input files were obtained (2 required); missing: /alice/a, /alice/b"
    assert record.as_json()["missing"] == {"/alice/a": "cut", "/alice/b": "does not exist"}
    assert not InputsObtained("all", 4, {"/alice/a": "cut"}).enough
