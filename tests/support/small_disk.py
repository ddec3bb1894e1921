"""A real disk (or quota) that fills up, mounted for one process alone; run by tests in a mount namespace of its own.

Usage: ``small_disk.py KIND FOLDER PROGRAM…``: mounts a disk of that kind over ``FOLDER`` and runs the program with
``FOLDER`` as its last argument. What is mounted goes with the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Kind → size of the disk in MiB, and the error of the system when it is full.
KINDS = {"tmpfs": "ENOSPC", "btrfs quota": "EDQUOT"}
_MIB = 1024 * 1024
_LIMIT = 8 * _MIB


def on_small_disk(kind: str, folder: Path, *program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program on a small disk; skips the test where nothing can be mounted."""
    command = ["unshare", "--mount", "--propagation", "private", "--", sys.executable, __file__, kind, str(folder)]
    done = subprocess.run([*command, *program], capture_output=True, text=True, check=False, timeout=200)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"no {kind} can be mounted here: {done.stderr.strip()[-200:]}")
    return done


def _mount(kind: str, folder: Path) -> None:
    commands = [["mount", "-t", "tmpfs", "-o", f"size={_LIMIT}", "none", str(folder)]]
    if kind == "btrfs quota":
        image = folder.with_name(f"{folder.name}.image")
        with image.open("wb") as stream:
            stream.truncate(128 * _MIB)
        commands = [
            ["mkfs.btrfs", "--quiet", "--mixed", str(image)],
            ["mount", "-o", "loop", str(image), str(folder)],
            ["btrfs", "quota", "enable", str(folder)],
            ["btrfs", "subvolume", "create", f"{folder}/mine"],
            ["btrfs", "qgroup", "limit", str(_LIMIT), f"{folder}/mine"],
            ["mount", "--bind", f"{folder}/mine", str(folder)],
        ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        except FileNotFoundError as error:
            sys.exit(_refused(str(error)))
        if done.returncode:
            sys.exit(_refused(f"{' '.join(command)}: {done.stderr}"))


def _refused(why: str) -> int:
    print(why, file=sys.stderr)
    return 77


if __name__ == "__main__":
    _mount(sys.argv[1], Path(sys.argv[2]))
    os.execv(sys.executable, [sys.executable, *sys.argv[3:], sys.argv[2]])
