"""Running a scheduler's commands: found or named as missing, never waited for without end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from pidml.errors import BatchUnavailable, ToolMissing

#: Longest time for one query, in s; a controller that is busier than this is asked again later.
QUERY_SECONDS = 120.0


def require_commands(names: Sequence[str], scheduler: str) -> None:
    """Check that a scheduler's commands are there.

    Raises:
        ToolMissing: names those that are not.
    """
    if missing := [name for name in names if shutil.which(name) is None]:
        raise ToolMissing(
            f"{scheduler}: not found on this machine: {', '.join(missing)}",
            "run on a host from which jobs are submitted (or load its module), or choose --workflow local",
        )


def run_command(command: Sequence[str], accept: Sequence[str] = ()) -> str:
    """Run a query of a scheduler and return what it prints.

    Args:
        command: program and arguments.
        accept: texts in an error message which mean "nothing found"; then "" is returned.

    Raises:
        BatchUnavailable: the command failed or took too long.
        ToolMissing: there is no such program.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=QUERY_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BatchUnavailable(
            f"{command[0]} did not answer within {QUERY_SECONDS:g} s", "see whether the scheduler is up"
        ) from error
    except FileNotFoundError as error:
        raise ToolMissing(
            f"{command[0]} is not installed here", "run on a host from which jobs are submitted"
        ) from error
    if done.returncode == 0:
        return done.stdout
    message = (done.stderr or done.stdout).strip()
    if any(text.lower() in message.lower() for text in accept):
        return ""
    raise BatchUnavailable(
        f"{command[0]} failed with code {done.returncode}: {message[:500]}", "see whether the scheduler is up"
    )
