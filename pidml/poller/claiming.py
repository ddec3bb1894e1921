"""Asking for tasks so that as few as possible can be lost, and keeping count of those that may be.

Before the question everything is ready for the answer: the store is writable, there is room, the idempotency key of the
claim is on the disk. The answer is written down, flushed and renamed before anything else is done. What remains is the
time between the server's assignment and that write, a few milliseconds and the way of the answer; a task that is
assigned within it stays in Training on a server that does not honour the key. With one that does, the same question
brings the same task again.

That a question is under way is on the disk too. So a question without an answer, whether the network lost it or this
process died, is known for ever; the next answer tells whether the server honours the key, and if not, it counts as a
task possibly lost.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pidml.alicetraint.client import AliceTraINTClient, Claim
from pidml.alicetraint.jobs import JobDirectory, all_jobs, jobs_dir, read_json, store_claim
from pidml.atomic import write_json
from pidml.errors import AnswerLost, ServerError, StoreError

logger = logging.getLogger(__name__)
_WRITE_AGAIN_SECONDS = 5.0


@dataclass(frozen=True)
class ClaimBook:
    """What is known of all claims of a store; ``jobs/next-claim.json``.

    Attributes:
        key: idempotency key of the next claim; the same until a task claimed with it is stored.
        asked: a question with this key is under way, or the process died over it.
        unanswered: questions with this key that got no answer.
        possibly_lost: questions of all time that got no answer, on a server that does not give a task again.
        last_lost: when the last of these was asked, seconds since the epoch.
    """

    key: str
    asked: bool = False
    unanswered: int = 0
    possibly_lost: int = 0
    last_lost: float = 0.0

    def settled(self, repeats: bool) -> ClaimBook:
        """Return the book after an answer: by then the server would have given a lost task again, if it does that."""
        lost = 0 if repeats else self.unanswered
        return replace(self, asked=False, unanswered=0, possibly_lost=self.possibly_lost + lost)


def read_book(store: Path) -> ClaimBook | None:
    """Return what is known of the claims of a store; ``None`` if no poller has run there.

    Raises:
        StoreError: the file is damaged.
    """
    path = jobs_dir(store) / "next-claim.json"
    told = read_json(path)
    if told is None:
        return None
    try:
        return ClaimBook(**{name: told[name] for name in ClaimBook.__dataclass_fields__ if name in told})
    except TypeError as error:
        raise StoreError(f"{path} is damaged: {error}", "remove it") from error


class Claims:
    """Claims tasks for one store.

    Attributes:
        store: its root.
        book: what is known of its claims; on the disk too.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        found = read_book(store)
        self.book = found or self._save(ClaimBook(uuid.uuid4().hex))
        if self.book.asked:
            self._after_death()

    def _save(self, book: ClaimBook) -> ClaimBook:
        write_json(jobs_dir(self.store) / "next-claim.json", asdict(book))
        self.book = book
        return book

    def _after_death(self) -> None:
        """An earlier life died between a question and the end of its claim."""
        if any(_claimed_with(job, self.book.key) for job in all_jobs(self.store)):
            self._save(replace(self.book.settled(repeats=False), key=uuid.uuid4().hex))
        else:
            self._unanswered("the poller died while it asked for a task")

    def _unanswered(self, why: str) -> None:
        logger.error("a task may have been assigned that did not arrive: %s", why)
        self._save(replace(self.book, asked=False, unanswered=self.book.unanswered + 1, last_lost=time.time()))

    def claim(self, client: AliceTraINTClient, wait: Callable[[float], bool]) -> JobDirectory | None:
        """Ask for a task and write it down; ``None`` if none is queued.

        Args:
            client: speaks to the server.
            wait: waits between attempts to write while the disk is full; true means to give up.

        Raises:
            ServerError: the question failed; see :meth:`AliceTraINTClient.claim`.
            StoreError: the task was claimed and cannot be written.
        """
        if self.book.unanswered:
            client.probe()
        self._save(replace(self.book, asked=True))
        try:
            claim = client.claim(self.book.key)
        except AnswerLost as error:
            self._unanswered(str(error))
            raise
        except ServerError:
            self._save(replace(self.book, asked=False))
            raise
        if claim is None:
            self._settle(client, self.book.key)
            return None
        job = self._store(claim, wait)
        self._settle(client, uuid.uuid4().hex)
        return job

    def _settle(self, client: AliceTraINTClient, key: str) -> None:
        before = self.book.possibly_lost
        self._save(replace(self.book.settled(client.repeats_claims), key=key))
        if new := self.book.possibly_lost - before:
            logger.error("%d tasks may be lost: this server does not give a task again; queue them anew", new)

    def _store(self, claim: Claim, wait: Callable[[float], bool]) -> JobDirectory:
        while True:
            try:
                job = store_claim(self.store, claim.task_id, claim.raw, self.book.key)
            except (StoreError, OSError) as error:
                logger.error("task %d is claimed and cannot be written down: %s", claim.task_id, error)
                if wait(_WRITE_AGAIN_SECONDS):
                    raise
            else:
                logger.info("task %d claimed at %s", claim.task_id, time.strftime("%H:%M:%S"))
                return job


def _claimed_with(job: JobDirectory, key: str) -> bool:
    try:
        return job.state().claim_key == key
    except StoreError:
        return False  # a damaged job is complained about elsewhere
