"""A journal of submissions: what was handed to the scheduler is known even if the submitter dies the next instant.

Each submission carries a token that no other one has. The token is written down before the job is submitted and its
number right after. A submitter that finds a token without a number asks the scheduler for a job of that name.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from pidml.atomic import explained


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
