"""Asking for tasks so that as few as possible can be lost.

Before the question everything is ready for the answer: the store is writable, there is room, the idempotency key of the
claim is on the disk. The answer is written down, flushed and renamed before anything else is done. What remains is the
time between the server's assignment and that write, a few milliseconds and the way of the answer; a task that is
assigned within it stays in Training on a server that does not honour the key. With one that does, the same question
brings the same task again.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pidml.alicetraint.client import AliceTraINTClient, Claim
from pidml.alicetraint.jobs import JobDirectory, jobs_dir, read_json, store_claim
from pidml.atomic import write_json
from pidml.errors import AnswerLost, StoreError

logger = logging.getLogger(__name__)
_WRITE_AGAIN_SECONDS = 5.0


class Claims:
    """Claims tasks for one store.

    Attributes:
        possibly_lost: answers lost on a server that does not give the same task again.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.possibly_lost = 0
        self._uncertain = False
        self._key_file = jobs_dir(store) / "next-claim.json"
        self._key = (read_json(self._key_file) or {}).get("key") or self._renew()

    def _renew(self) -> str:
        self._key = uuid.uuid4().hex
        write_json(self._key_file, {"key": self._key})
        return self._key

    def claim(self, client: AliceTraINTClient, wait: Callable[[float], bool]) -> JobDirectory | None:
        """Ask for a task and write it down; ``None`` if none is queued.

        Args:
            client: speaks to the server.
            wait: waits between attempts to write while the disk is full; true means to give up.

        Raises:
            ServerError: the question failed; see :meth:`AliceTraINTClient.claim`.
            StoreError: the task was claimed and cannot be written.
        """
        if self._uncertain:
            client.probe()
        try:
            claim = client.claim(self._key)
        except AnswerLost as error:
            self._uncertain = True
            if not client.repeats_claims:
                self.possibly_lost += 1
                logger.error("a task may have been assigned that did not arrive: %s", error)
            raise
        self._uncertain = False
        if claim is None:
            return None
        job = self._store(claim, wait)
        self._renew()
        return job

    def _store(self, claim: Claim, wait: Callable[[float], bool]) -> JobDirectory:
        while True:
            try:
                job = store_claim(self.store, claim.task_id, claim.raw, self._key)
            except (StoreError, OSError) as error:
                logger.error("task %d is claimed and cannot be written down: %s", claim.task_id, error)
                if wait(_WRITE_AGAIN_SECONDS):
                    raise
            else:
                logger.info("task %d claimed at %s", claim.task_id, time.strftime("%H:%M:%S"))
                return job
