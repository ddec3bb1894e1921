"""How an output came to be: settings, inputs, versions, machine, times and peak memory."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import socket
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pidml import __version__, resources
from pidml.atomic import write_json
from pidml.identity import file_checksum

FILE_NAME = "provenance.json"
_PACKAGES = ("law", "luigi", "numpy", "uproot", "awkward", "torch", "lightning", "onnx", "onnxruntime", "scikit-learn")


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@lru_cache
def packages() -> dict[str, str]:
    """Return the versions of the packages that can change an output; absent ones are left out."""
    found = {"pidml": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@lru_cache
def git_commit() -> str | None:
    """Return the commit of the checkout that runs, with ``-dirty`` if files differ; None outside a checkout."""
    if not (resources.ROOT / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(resources.ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="utf-8").splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):  # getrusage would start with the memory of the process that started this one
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_provenance(directory: Path, **facts: Any) -> None:
    """Write ``provenance.json`` into a finished output directory.

    Args:
        directory: the output; every file in it is listed with size and SHA-256.
        facts: what the caller knows: task, version, digest, settings, inputs, seed, started, seconds.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != FILE_NAME)
    write_json(
        directory / FILE_NAME,
        {
            **facts,
            "finished": now(),
            "packages": packages(),
            "git": git_commit(),
            "host": socket.gethostname(),
            "machine": platform.machine(),
            "peak_memory_bytes": peak_memory_bytes(),
            "outputs": {
                str(path.relative_to(directory)): {"bytes": path.stat().st_size, "sha256": file_checksum(path)}
                for path in files
            },
        },
    )
