"""Faults between a submitter and a real scheduler: commands that fail, and submitters that die before the answer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from support.schedulers.daemons import Daemons

_WRAPPER = """#!/bin/sh
if [ -e {folder}/down ]; then
    echo "{name}: error: cannot contact the scheduler" >&2
    exit 1
fi
answer=$({real} "$@")
code=$?
if [ -e {folder}/kill.{name} ] && printf '%s' "$answer" | grep -q -f {folder}/kill.{name}; then
    mv {folder}/kill.{name} {folder}/killed
    kill -s KILL -- -$(cat {folder}/submitter)
fi
printf '%s\\n' "$answer"
exit $code
"""


class Sabotage:
    """The scheduler's commands with faults; :attr:`environment` has them found before the real ones.

    Args:
        folder: where the commands are written to.
        scheduler: the real one.
    """

    def __init__(self, folder: Path, scheduler: Daemons) -> None:
        self.folder = folder
        commands = folder / "bin"
        commands.mkdir(parents=True)
        path = scheduler.environment["PATH"]
        for name in (scheduler.submits, *scheduler.tells):
            real = shutil.which(name, path=path)
            (commands / name).write_text(_WRAPPER.format(folder=folder, name=name, real=real))
            (commands / name).chmod(0o755)
        self.environment = {"PATH": f"{commands}{os.pathsep}{path}"}

    def kill_submitter(self, process_group: int, command: str, pattern: str) -> None:
        """Kill a process group, once, when ``command`` has done its work and answers with text like ``pattern``."""
        (self.folder / "killed").unlink(missing_ok=True)
        (self.folder / "submitter").write_text(str(process_group))
        (self.folder / f"kill.{command}").write_text(f"{pattern}\n")

    def down(self) -> None:
        """Have all commands fail."""
        (self.folder / "down").touch()

    def up(self) -> None:
        """Have them work again."""
        (self.folder / "down").unlink(missing_ok=True)
