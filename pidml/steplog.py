"""One log file per step: everything that the step and its child processes print, also shown on the terminal.

The capture works on file descriptors, so that output of subprocesses and of compiled libraries is in the log too. On a
terminal the step keeps seeing a terminal (a pseudo-terminal), so progress bars work; the log keeps only the last state
of a progress line and no control sequences.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import BinaryIO, TextIO

_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


def plain_line(line: bytes) -> bytes:
    r"""Return a line as it stood at its end: without control sequences and overwritten parts.

    >>> plain_line(b"\x1b[1m10 %\r20 %\x1b[0m")
    b'20 %'
    """
    parts = _CONTROL.sub(b"", line).rstrip(b"\r").split(b"\r")
    return parts[-1].rstrip()


@contextmanager
def captured(log: Path) -> Iterator[None]:
    """Append everything printed in the block, by this process or its children, to ``log``; still show it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    stream = log.open("ab")
    sys.stdout.flush()
    sys.stderr.flush()
    saved_out, saved_err = os.dup(1), os.dup(2)
    terminal = os.isatty(saved_err) and os.isatty(saved_out)
    reading, writing = _terminal_pair(saved_err) if terminal else os.pipe()
    # The thread owns what it uses: a child that outlives the step keeps it copying, no descriptor is closed under it.
    copier = threading.Thread(target=_copy, args=(reading, os.dup(saved_out), stream), name="step-log", daemon=True)
    copier.start()
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)
    try:
        # sys.stdout may have been replaced (a notebook, a test): what Python prints must reach the descriptors.
        with _text(1) as out, _text(2) as err, redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        for saved, number in ((saved_out, 1), (saved_err, 2)):
            os.dup2(saved, number)
            os.close(saved)
        copier.join(timeout=5)


def _text(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _terminal_pair(terminal: int) -> tuple[int, int]:
    reading, writing = os.openpty()
    tty.setraw(writing)
    size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(writing, termios.TIOCSWINSZ, size)
    return reading, writing


def _copy(reading: int, shown: int, log: BinaryIO) -> None:
    """Copy until every writer has closed; a pseudo-terminal then reports EIO instead of end of file."""
    rest = b""
    with log:
        while data := _read(reading):
            _show(shown, data)
            *lines, rest = (rest + data).split(b"\n")
            log.writelines(plain_line(line) + b"\n" for line in lines)
            log.flush()
        if rest:
            log.write(plain_line(rest) + b"\n")
    os.close(reading)
    os.close(shown)


def _read(reading: int) -> bytes:
    try:
        return os.read(reading, 65536)
    except OSError:
        return b""


def _show(shown: int, data: bytes) -> None:
    """Write to where output went before; a terminal that was closed meanwhile does not stop the step."""
    try:
        os.write(shown, data)
    except OSError:
        return
