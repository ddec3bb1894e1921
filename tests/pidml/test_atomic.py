"""Atomic writes: complete or absent, also when the process is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pidml.atomic import atomic_directory, atomic_file, exclusive, is_temporary, write_json
from pidml.errors import DiskFull, StoreError

KILLED_IN_THE_MIDDLE = """
import os, sys
from pidml.atomic import atomic_directory, atomic_file
kind, path = sys.argv[1:]
with (atomic_file if kind == "file" else atomic_directory)(path) as temporary:
    target = temporary if kind == "file" else temporary / "a.bin"
    with target.open("wb") as stream:
        stream.write(b"x" * 1_000_000)
        stream.flush()
        print("half", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_process_killed_while_writing_leaves_nothing_that_counts(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "output.bin"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_IN_THE_MIDDLE, kind, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    process.stdin.close()
    process.stdout.close()
    assert not target.exists()
    assert all(is_temporary(path) for path in tmp_path.iterdir())


def test_an_error_while_writing_leaves_nothing_at_all(tmp_path: Path) -> None:
    for context in (atomic_file, atomic_directory):
        with pytest.raises(RuntimeError), context(tmp_path / "a.txt") as temporary:  # noqa: PT012 - writes, then fails
            if context is atomic_directory:
                (temporary / "part").write_text("half")
            else:
                temporary.write_text("half")
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_whole_and_keeps_its_content_on_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"new": float("nan")})
    assert path.read_text() == '{\n  "old": 1\n}\n'


def test_the_temporary_name_keeps_the_extension(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "model.onnx") as temporary:
        assert temporary.suffix == ".onnx"
        assert is_temporary(temporary)
        temporary.write_bytes(b"")


def test_of_two_writers_of_a_directory_the_first_stays(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "out") as ours:
        (ours / "who").write_text("second")
        with atomic_directory(tmp_path / "out") as theirs:
            (theirs / "who").write_text("first")
    assert (tmp_path / "out" / "who").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(DiskFull, match="no space left"), atomic_file(small / "big.bin") as temporary:
            temporary.write_bytes(b"x" * 1_000_000)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"), atomic_file(tmp_path / "file" / "a.txt"):
        pass


def test_a_path_is_held_by_one_process_and_freed_of_what_killed_ones_left(tmp_path: Path) -> None:
    target = tmp_path / "output"
    (tmp_path / ".output.tmp-dead").mkdir()
    (tmp_path / ".other.tmp-alive").mkdir()
    code = "import sys; from pidml.atomic import exclusive\nwith exclusive(sys.argv[1]): print('held', flush=True)"
    with exclusive(target):
        waiting = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=2)
    assert waiting.communicate(timeout=20)[0] == b"held\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.tmp-alive", ".output.lock"]
