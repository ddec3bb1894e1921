"""How to start law in a process of its own: the command, and the environment that makes it find its configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pidml import resources
from pidml.batch.site import profile_file


def law_command(task: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command line of ``law run TASK …`` with this Python."""
    return [sys.executable, "-m", "law", "run", task, *arguments]


def law_environment(store: Path, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for law: configuration, index and home are named, so it works from any folder.

    Without a named configuration law looks for a central scheduler for a minute before it gives up.

    Raises:
        ConfigError: ``PIDML_SITE`` names a profile that does not exist.
    """
    values = dict(os.environ if environment is None else environment)
    if site := values.get("PIDML_SITE"):
        profile_file(site)
    values.setdefault("LAW_CONFIG_FILE", str(resources.law_config()))
    values.setdefault("LAW__core__index_file", str(resources.configs("law-index")))
    values.setdefault("LAW_HOME", str(store / ".law"))
    values["PIDML_STORE"] = str(store)
    return values
