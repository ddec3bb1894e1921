"""What the poller tells the world besides the server: counts, sign of life, Prometheus file, complaints in its log."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pidml.alicetraint.jobs import jobs_dir
from pidml.errors import StoreError
from pidml.poller.claiming import ClaimBook
from pidml.poller.disk import free_bytes
from pidml.poller.run import write_light
from pidml.settings import Settings

logger = logging.getLogger(__name__)
_REMIND_SECONDS = 3600.0


@dataclass
class Counts:
    """What a poller did since it was started.

    Attributes:
        claimed: tasks claimed.
        completed: jobs that the server knows to be completed.
        failed: jobs that the server knows to be failed.
        retries: times that a job was put off after a transient failure.
        recovered: jobs that an earlier life of the poller left running.
        unsent: jobs that ended, but the server does not know it yet.
    """

    claimed: int = 0
    completed: int = 0
    failed: int = 0
    retries: int = 0
    recovered: int = 0
    unsent: int = 0


class Complaints:
    """Says the same thing once, and again every hour, instead of at every poll."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Log a warning unless it was said within the last hour."""
        now = time.monotonic()
        if now - self._said.get(text, -_REMIND_SECONDS) >= _REMIND_SECONDS:
            self._said[text] = now
            self._log.warning("%s", text)

    def over(self, text: str) -> None:
        """Log that what was complained about is over, if there was anything."""
        if self._said:
            self._said.clear()
            self._log.info("%s", text)


def heartbeat_path(store: Path) -> Path:
    """Return the poller's sign of life."""
    return jobs_dir(store) / "poller.json"


def publish(
    settings: Settings, counts: Counts, claims: ClaimBook, doing: str, task: int | None, open_jobs: int
) -> None:
    """Write the poller's sign of life and, if asked for, its numbers for Prometheus.

    A full disk does not end the poller: the signs grow old then, which is what they are for.
    """
    try:
        free = free_bytes(settings.store)
        sign = {
            "time": time.time(),
            "pid": os.getpid(),
            "host": platform.node(),
            "doing": doing,
            "task": task,
            "open_jobs": open_jobs,
            "disk_free_bytes": free,
            "claims_possibly_lost": claims.possibly_lost,
            "claims_unanswered": claims.unanswered,
            **asdict(counts),
        }
        write_light(heartbeat_path(settings.store), json.dumps(sign) + "\n")
        if settings.metrics_file is not None:
            write_light(settings.metrics_file, prometheus_text(sign))
    except (OSError, StoreError) as error:
        logger.warning("no sign of life can be written: %s", error)


def prometheus_text(sign: dict[str, object]) -> str:
    """Return the sign of life in Prometheus' text format.

    >>> print(prometheus_text({"time": 1.5, "doing": "idle", "task": None, "claimed": 2}), end="")
    # TYPE pidml_poller_time_seconds gauge
    pidml_poller_time_seconds 1.5
    # TYPE pidml_poller_running gauge
    pidml_poller_running 0
    # TYPE pidml_poller_claimed_total counter
    pidml_poller_claimed_total 2
    """
    named = {
        "time": ("time_seconds", "gauge"),
        "open_jobs": ("open_jobs", "gauge"),
        "disk_free_bytes": ("disk_free_bytes", "gauge"),
        "claims_unanswered": ("claims_unanswered", "gauge"),
    }
    lines = []
    for key, value in sign.items():
        if key in ("pid", "host", "task"):
            continue
        name, kind = named.get(key, (f"{key}_total", "counter"))
        if key == "doing":
            name, kind, value = "running", "gauge", int(value == "running")  # noqa: PLW2901 - the state as a number
        lines += [f"# TYPE pidml_poller_{name} {kind}", f"pidml_poller_{name} {value}"]
    return "\n".join(lines) + "\n"
