"""Downloads through alien_cp: a stand-in with its real command line, failing as the real one does."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
import support

from pidml.errors import ChecksumMismatch, DiskFull, DownloadError, InputMissing, ToolMissing
from pidml.fetch import FetchOptions, fetch
from pidml.spec.data_sections import InputFile

LFN = "/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root"
CONTENT = bytes(range(256)) * 2000
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
QUICK = FetchOptions(backoff=0.01, max_backoff=0.02, reserve=0, streams=9)


class Grid:
    """The stand-in's world: a folder of LFNs, the faults to come, and what it was asked."""

    def __init__(self, folder):
        self.settings, self.log, self.grid = folder / "stand-in.json", folder / "log", folder / "grid"
        stored = self.grid / LFN.lstrip("/")
        stored.parent.mkdir(parents=True)
        stored.write_bytes(CONTENT)
        self.will()

    def will(self, *faults):
        self.settings.write_text(json.dumps({"grid": str(self.grid), "log": str(self.log), "faults": faults}))

    def calls(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def grid(tmp_path, monkeypatch):
    world = Grid(tmp_path)
    program = tmp_path / "bin" / "alien_cp"
    program.parent.mkdir()
    stand_in = Path(support.__path__[0]) / "alien_cp_stand_in.py"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stand_in}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(world.settings))
    return world


@pytest.fixture
def destination(tmp_path):
    # Characters that alien_cp would take for storage specifications or commands, were they in its arguments.
    return tmp_path / "my store; a@b,c | d" / "AO2D.root"


def get(destination, options=QUICK, **file):
    return fetch(InputFile(path=file.pop("path", LFN), **file), destination, options)


def running(pid):
    """Whether a process runs; one that ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def published(destination):
    assert [path.name for path in destination.parent.iterdir()] == [destination.name]
    return destination.read_bytes()


@pytest.mark.parametrize("path", [LFN, f"alien://{LFN}"])
def test_the_command_line_is_that_of_alien_cp(grid, destination, path):
    receipt = get(destination, path=path, size=len(CONTENT), checksum=SHA256)
    assert published(destination) == CONTENT
    assert (receipt.method, receipt.source, receipt.checksums) == ("alien_cp", f"alien://{LFN}", (SHA256,))
    (call,) = grid.calls()
    expected = f"-retry 2 -S 9 -timeout 21600 -cksum alien://{LFN} file:file.root"
    assert call["arguments"] == expected.split()
    assert Path(call["cwd"]).parent == destination.parent


@pytest.mark.parametrize("fault", ["no services", "no replica", "cut", "checksum", "nothing copied"])
def test_passing_failures_are_tried_again(grid, destination, fault):
    grid.will(fault, fault)
    assert get(destination, size=len(CONTENT)).attempts == 3
    assert published(destination) == CONTENT


def test_a_missing_lfn_is_named_at_once(grid, destination):
    with pytest.raises(InputMissing, match=r"is not in the GRID's catalogue: Specified source .* not found!"):
        get(destination, path=LFN.replace("001", "002"))
    assert len(grid.calls()) == 1


def test_a_missing_token_is_named_at_once_without_showing_it(grid, destination):
    grid.will("no token")
    with pytest.raises(DownloadError, match="Invalid/expired user certificate") as caught:
        get(destination)
    assert "alien-token-init" in str(caught.value)
    assert "S3CR3T" not in str(caught.value)
    assert len(grid.calls()) == 1


def test_giving_up_quotes_alien_cp_without_credentials(grid, destination):
    grid.will(*["cut"] * 5)
    with pytest.raises(DownloadError, match=r"5 attempts from alien:///alice.*Socket error root://se//x") as caught:
        get(destination)
    assert not [secret for secret in ("S3CR3T", "pw@", "\x1b") if secret in str(caught.value)]
    assert list(destination.parent.iterdir()) == []


def test_damage_that_alien_cp_does_not_see_is_seen(grid, destination):
    grid.will("silent damage")
    assert get(destination, checksum=SHA256).attempts == 2
    grid.will("silent damage", "silent damage")
    destination.unlink()
    with pytest.raises(ChecksumMismatch):
        get(destination, checksum=SHA256)
    assert list(destination.parent.iterdir()) == []


def test_a_full_disk_is_named_and_not_tried_again(grid, destination):
    grid.will("disk full")
    with pytest.raises(DiskFull, match="no space left while alien_cp copied"):
        get(destination)
    assert len(grid.calls()) == 1
    with pytest.raises(DiskFull, match=r"needs 512,000 B"):
        get(destination, FetchOptions(reserve=1 << 60), size=len(CONTENT))
    assert len(grid.calls()) == 1


def test_a_hanging_copy_is_ended_with_its_children(grid, destination, monkeypatch):
    monkeypatch.setattr("pidml.fetch.alien._GRACE", 0.5)
    grid.will("hang")
    options = FetchOptions(backoff=0.01, reserve=0, attempt_timeout=1.0)
    assert get(destination, options).attempts == 2
    child = destination.parent / "child"
    assert not running(int(child.read_text()))
    assert not running(grid.calls()[0]["pid"])
    child.unlink()
    assert published(destination) == CONTENT


def test_the_leftovers_of_a_killed_copy_do_not_disturb(grid, destination):
    left = destination.parent / ".AO2D.tmp-alien"
    left.mkdir(parents=True)
    (left / "file.root").write_bytes(b"half")
    (left / "cp").write_text("!reboot")
    get(destination)
    assert published(destination) == CONTENT


def test_without_alien_cp_the_error_says_what_to_install(tmp_path, destination, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="alien_cp is not installed") as caught:
        get(destination)
    assert "pip install alienpy" in str(caught.value)


def test_a_mirror_is_tried_before_the_grid(grid, destination, tmp_path):
    options = FetchOptions.from_env({"PIDML_GRID": f"{tmp_path}/mirror,alien"})
    receipt = get(destination, options)
    assert (receipt.method, receipt.attempts) == ("alien_cp", 2)
    assert published(destination) == CONTENT
