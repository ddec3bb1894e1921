"""Files of the ALICE GRID through ``alien_cp`` of the alienpy package.

``alien_cp`` compares the MD5 sum of the catalogue (where it has one) itself and goes from replica to replica; it cannot
go on with a part of a file. Facts about it (alienpy 1.7): ``-retry N``, ``-S STREAMS`` (at most 15), ``-timeout S``;
``-cksum`` is the default of newer versions and needed by older ones; exit status 0 also when nothing was copied, 2 when
the LFN does not exist but also when no replica can be reached, 107 when the central services cannot be reached.
Arguments are joined and parsed again, so that ``;``, ``|``, ``@``, ``,`` and ``*`` act: logical file names are
restricted to plain characters (:mod:`pidml.fetch.sources`), the local name is a fixed one in a folder of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from pidml.errors import DiskFull, DownloadError, InputMissing, ToolMissing
from pidml.fetch.redaction import redacted_text
from pidml.fetch.transfer import Request, Transfer, TransientError, require_space

_NAME = "file.root"
_GRACE = 10.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ABSENT = re.compile(r"Specified source .* not found|does not exist|[Nn]o such file", re.DOTALL)
_DENIED = re.compile(
    r"(?i)permission denied|not authorized|expired (user )?certificate|certificate files not found|no valid token"
)
_FULL = re.compile(r"[Nn]o space left|[Dd]isk quota exceeded")


def command(lfn: str, streams: int, timeout: float) -> list[str]:
    """Return the command line that copies ``lfn`` to ``file.root`` in the current folder.

    >>> " ".join(command("/alice/sim/2026/x/AO2D.root", 4, 600.0)[1:])
    '-retry 2 -S 4 -timeout 600 -cksum alien:///alice/sim/2026/x/AO2D.root file:file.root'

    Args:
        lfn: logical file name, plain characters only.
        streams: additional parallel streams, 1…15.
        timeout: longest time for the copy, in s.
    """
    return [
        "alien_cp",
        *("-retry", "2"),
        *("-S", str(min(streams, 15))),
        *("-timeout", str(max(1, int(timeout)))),
        "-cksum",
        f"alien://{lfn}",
        f"file:{_NAME}",
    ]


def transfer(request: Request) -> Transfer:
    """Copy a file from the GRID beside the destination.

    Raises:
        ToolMissing: ``alien_cp`` is not installed.
        InputMissing: the catalogue does not know the LFN.
        DownloadError: the certificate or token is not accepted.
        DiskFull: the disk cannot hold the file.
        TransientError: any other failure.
    """
    program = shutil.which("alien_cp")
    if program is None:
        raise ToolMissing(
            f"{request.source.shown} is on the GRID, but alien_cp is not installed",
            "pip install alienpy (or enter an O2 environment), then get a token with alien-token-init; "
            "or name another source in PIDML_GRID",
        )
    destination = request.partial.destination
    if request.size is not None:
        require_space(destination.parent, request.size, request.options.reserve, request.source.shown)
    folder = destination.with_name(f".{destination.stem}.tmp-alien")
    shutil.rmtree(folder, ignore_errors=True)  # of a killed attempt; the partial file's lock keeps others out
    folder.mkdir()
    try:
        status, output = _run(program, request, folder)
        _judge(request, status, output, folder / _NAME)
        complete = destination.with_name(f".{destination.stem}.tmp-copied{destination.suffix}")
        (folder / _NAME).replace(complete)
        return Transfer(complete)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: str, request: Request, folder: Path) -> tuple[int, str]:
    """Return exit status and output; the program and its children are ended if the time is over."""
    limit = request.options.attempt_timeout
    arguments = [program, *command(request.source.address, request.options.streams, limit)[1:]]
    with subprocess.Popen(
        arguments,
        cwd=folder,
        stdin=subprocess.DEVNULL,  # it would ask for a certificate's password
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={key: value for key, value in os.environ.items() if key != "MACHINE_SECRET_KEY"} | {"TERM": "dumb"},
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit + _GRACE)
        except subprocess.TimeoutExpired as error:
            raise TransientError(f"alien_cp was not done after {limit:g} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    text = _COLOUR.sub("", output.decode("utf-8", errors="replace")).strip()
    return process.returncode, redacted_text(text)


def _judge(request: Request, status: int, output: str, copied: Path) -> None:
    """Raise what the exit status, the output and the file itself say."""
    shown, said = request.source.shown, " / ".join(output.splitlines()[-5:])[-600:]
    if status == 0 and copied.is_file():
        return
    copied.unlink(missing_ok=True)
    if _FULL.search(output):
        raise DiskFull(
            f"no space left while alien_cp copied {shown}",
            "free some space (`pidml gc` lists what no kept job needs) or move the store with PIDML_STORE, then rerun",
        )
    if status == 0:
        raise TransientError(f"alien_cp ended well but made no file: {said}")
    if _DENIED.search(output):
        raise DownloadError(f"alien_cp may not read {shown}: {said}", "renew the GRID token: alien-token-init")
    if _ABSENT.search(output):
        raise InputMissing(f"{shown} is not in the GRID's catalogue: {said}", "check the logical file name in the job")
    reason = "cannot reach the central services" if status == 107 else f"failed with status {status}"
    raise TransientError(f"alien_cp {reason}: {said}")
