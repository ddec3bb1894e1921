"""The step log: everything printed, also by children, and readable on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pidml.steplog import captured, plain_line


def test_output_of_children_is_in_the_log_and_still_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "step.log"
    with captured(log):
        print("from python", flush=True)
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'from a child\\n')"], check=True)
    print("after", flush=True)
    assert log.read_text() == "from python\nfrom a child\n"
    assert capfd.readouterr().out == "from python\nfrom a child\nafter\n"


def test_a_second_run_appends(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with captured(tmp_path / "step.log"):
            print(text)
    assert (tmp_path / "step.log").read_text() == "first\nsecond\n"


def test_an_error_leaves_the_descriptors_as_they_were(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), captured(tmp_path / "step.log"):
        raise RuntimeError
    os.write(1, b"still here\n")
    assert "still here" in capfd.readouterr().out


def test_progress_lines_keep_their_last_state() -> None:
    assert plain_line(b"\x1b[2K 10 %\r 20 %\r100 %\x1b[0m\r") == b"100 %"


def test_on_a_terminal_the_step_still_sees_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    code = f"""
import sys
import threading
from pathlib import Path
from pidml.steplog import captured
with captured(Path({str(log)!r})):
    print("terminal" if sys.stdout.isatty() else "no terminal")
    sys.stdout.write("10 %\\r20 %\\n")
"""
    master, worker = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=worker, stdout=worker, stderr=worker)
    os.close(worker)
    process.wait(timeout=30)
    os.close(master)
    assert log.read_text() == "terminal\n20 %\n"


def test_a_child_that_outlives_the_step_disturbs_nothing(tmp_path: Path) -> None:
    log, other = tmp_path / "step.log", tmp_path / "other"
    code = "import sys; sys.stdin.read(); print('late', flush=True)"
    with captured(log):
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    with other.open("wb") as stream:
        child.communicate(b"")
        stream.write(b"mine")
    assert other.read_bytes() == b"mine"
    for thread in threading.enumerate():
        if thread.name == "step-log":
            thread.join(timeout=10)
    assert log.read_text() == "late\n"
