"""What all benchmarks share: one JSON line per figure, with the machine it was taken on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from pidml.errors import PidmlError


@cache
def machine() -> dict[str, Any]:
    """Describe this machine: processor, usable cores, memory (GiB), kernel, Python, and the load when first asked."""
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def emit(name: str, value: float, unit: str, **extra: Any) -> None:
    """Print one figure as one JSON line on standard output.

    Args:
        name: what was measured, dotted: ``prepare.throughput``.
        value: the figure.
        unit: its unit: ``tracks/s``, ``s``, ``MiB``, or empty for a ratio.
        extra: circumstances worth knowing (sizes, options).
    """
    figure = {"name": name, "value": float(f"{value:.6g}"), "unit": unit, **extra, "machine": machine()}
    print(json.dumps(figure, ensure_ascii=False), flush=True)


def median_seconds(action: Callable[[], object], repeats: int) -> float:
    """Return the median of the times, in s, that an action takes."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def peak_memory() -> float:
    """Return the largest resident memory that this process has had, in MiB."""
    # Not getrusage: what it gives starts with the memory of the process that started this one.
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise PidmlError("/proc/self/status has no line VmHWM", "run benchmarks on Linux")


def in_fresh_process(script: Path | str, *arguments: str) -> dict[str, Any]:
    """Run a benchmark script in a new interpreter (its own memory and caches) and return its last JSON line.

    Raises:
        PidmlError: the script failed; its standard error is in the text.
    """
    command = [sys.executable, str(script), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise PidmlError(f"{' '.join(command)} ended with status {ended.returncode}:\n{ended.stderr}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
