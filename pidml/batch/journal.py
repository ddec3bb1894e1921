"""A journal of submissions: what was handed to the scheduler is known even if the submitter dies the next instant.

Each submission carries a token that no other one has. The token is written down before the job is submitted and its
number right after. A submitter that finds a token without a number asks the scheduler for a job of that name. The
token says when it was made, so that schedulers need not search all their history for it.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from pidml.atomic import explained

_TIME = re.compile(r"-([0-9a-f]{8})[0-9a-f]{8}$")
#: How far a scheduler's clock may be behind, and how long a job may linger on its way into the history, in s.
_MARGIN = 3600.0


def new_token(step: str, branch: int, digest: str) -> str:
    """Return a name that no other submission has.

    Args:
        step: name of the step.
        branch: the first one that the job makes.
        digest: of the workflow.
    """
    return f"pidml-{step}-{branch}-{digest}-{int(time.time()):08x}{uuid.uuid4().hex[:8]}"


def not_before(tokens: Iterable[str]) -> float:
    """Return a time, in s since the epoch, before which none of the submissions was made.

    >>> not_before(["pidml-Train-0-0a1b2c3d4e5f-68f0a0000a1b2c3d"]) == 0x68F0A000 - 3600
    True
    """
    made = [int(found[1], 16) if (found := _TIME.search(token)) else 0 for token in tokens]
    return max(0.0, min(made, default=0) - _MARGIN)


class Journal:
    """Lines of JSON in a file, appended and flushed one by one.

    Args:
        path: the file; it is made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def submitted(self, token: str, job_id: int | str) -> None:
        """Record the scheduler's number of a submission.

        Raises:
            DiskFull, StoreError: the file cannot be written.
        """
        line = json.dumps({"token": token, "id": job_id}) + "\n"
        with self._lock, explained(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

    def known(self) -> dict[str, int | str]:
        """Return token → number of all submissions; a line that a kill cut short is left out."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        found: dict[str, int | str] = {}
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found[record["token"]] = record["id"]
        return found

    def clear(self) -> None:
        """Forget everything: the numbers are in the state file now."""
        with self._lock:
            self.path.unlink(missing_ok=True)
