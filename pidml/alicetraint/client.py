"""The machine protocol of AliceTraINT: fetch a task, report its status, upload results.

**What a claim can lose.** Asking for a task assigns it, and the protocol has no call that gives it again. If the answer
is lost on the way, a second question assigns a *second* task. So a claim is sent on a fresh connection (an idle one may
have been cut), is repeated only when it certainly did not reach the server, and otherwise ends in ``AnswerLost``: the
caller waits, makes sure that answers come back at all (:meth:`AliceTraINTClient.probe`), and only then asks again. A
broken path can thus cost a task, never the whole queue. Every claim also carries an ``Idempotency-Key`` that stays the
same until a task is safely stored: a server that honours it (the embedded one does, and echoes it) gives the same task
again, and nothing is lost.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pidml.alicetraint.transport import Answer, Retry, Timeouts, Transport, check, with_retries
from pidml.errors import AnswerLost, StoreError
from pidml.server.protocol import FileType, TaskStatus
from pidml.settings import ServerAddress, Settings

MAX_TASK_BYTES = 64 * 1024 * 1024
MAX_UPLOAD_BYTES = 256 * 1024 * 1024
MAX_TASK_ID = 2**63 - 1
MAX_DESCRIPTION = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,149}")
#: The server writes ``ID`` first; enough to name a task whose JSON cannot be read otherwise.
_FIRST_KEY_IS_ID = re.compile(rb'\s*\{\s*"ID"\s*:\s*(\d{1,19})\s*[,}]')


@dataclass(frozen=True)
class Claim:
    """A task just assigned to this machine.

    Attributes:
        task_id: its number.
        raw: the server's answer, byte for byte; not checked beyond the number.
    """

    task_id: int
    raw: bytes


class AliceTraINTClient:
    """Speaks for one machine to one server.

    Args:
        address: base address, machine id and key.
        timeouts: of every request.
        retry: of every call.
        wait: waits for a number of seconds between tries; returning true ends the tries.
    """

    def __init__(
        self,
        address: ServerAddress,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.address = address
        self.retry = retry or Retry()
        self.repeats_claims = False
        self._wait = wait or _sleep
        self._transport = Transport(address, timeouts)

    @classmethod
    def of_settings(
        cls, settings: Settings, retry: Retry | None = None, wait: Callable[[float], bool] | None = None
    ) -> AliceTraINTClient:
        """Return a client for this machine; inside a job it tries three times, then the outbox keeps what is owed.

        Raises:
            ConfigError: machine id, key or address is not set.
        """
        timeouts = Timeouts(settings.connect_seconds, settings.read_seconds, 15 * settings.read_seconds)
        return cls(settings.server_address(), timeouts, retry or Retry(attempts=3, longest=15.0), wait)

    def __enter__(self) -> AliceTraINTClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def claim(self, key: str) -> Claim | None:
        """Ask for a task; ``None`` if none is queued.

        Args:
            key: idempotency key; the same until a task claimed with it is stored.

        Raises:
            ServerError: not reached, or turned away; asking again is safe.
            AnswerLost: a task may have been assigned that this machine does not know.
            KeyRefused: wrong machine id or key.
            ServerRefused: the server does not accept the question.
        """

        def ask() -> Answer:
            answer = self._transport.send(
                "GET",
                f"/training-machines/{self.address.machine_id}/training-task",
                fresh=True,
                limit=MAX_TASK_BYTES,
                headers={"Idempotency-Key": key, "Connection": "close"},
            )
            self.repeats_claims = answer.headers.get("idempotency-key") == key or self.repeats_claims
            return check(answer, 200, 404)

        answer = with_retries(ask, self.retry, self._wait)
        return None if answer.status == 404 else Claim(task_id_of(answer.body), answer.body)

    def set_status(self, task_id: int, status: TaskStatus) -> None:
        """Report a task's status; repeating it does no harm.

        Raises:
            ServerError: could not be sent now.
            ServerRefused: the server does not accept it.
        """

        def post() -> Answer:
            answer = self._transport.send("POST", f"/training-tasks/{task_id}/status", json={"Status": int(status)})
            return check(answer, 200, 201, 204)

        with_retries(post, self.retry, self._wait, lost=_no_matter)

    def upload_result(
        self,
        task_id: int,
        name: str,
        content: bytes,
        description: str,
        file_type: FileType,
        key: str,
        lost: Callable[[], None] | None = None,
    ) -> Any:
        """Upload a file as a result of a task.

        When an answer is lost the file is sent again: a duplicate is better than a loss. The key lets a server that
        honours it recognise the second copy.

        Args:
            task_id: the task.
            name: file name shown by the server; see :func:`check_name`.
            content: the file's bytes.
            description: one line for people.
            file_type: log, image or network.
            key: see :func:`idempotency_key`.
            lost: called whenever a copy may have been stored although no answer came.

        Returns:
            the server's JSON answer, or its text if it is none.

        Raises:
            StoreError: the name or size cannot be sent.
            ServerError: could not be sent now.
            ServerRefused: the server does not accept it.
        """
        check_name(name)
        if len(content) > MAX_UPLOAD_BYTES:
            raise StoreError(f"{name} has {len(content)} bytes, more than {MAX_UPLOAD_BYTES}", "send less of it")

        def post() -> Answer:
            answer = self._transport.send(
                "POST",
                f"/training-tasks/{task_id}/training-task-results",
                headers={"Idempotency-Key": key},
                data={"name": name, "description": description[:MAX_DESCRIPTION], "file-type": str(int(file_type))},
                files={"file": (name, content, "application/octet-stream")},
            )
            return check(answer, 200, 201)

        return _json_or_text(with_retries(post, self.retry, self._wait, lost=lost or _no_matter))

    def probe(self) -> Answer:
        """Return the server's front page, asked for without the key; that it came shows that answers come back.

        Raises:
            ServerError: no answer, or one of 500 or above.
        """
        answer = self._transport.send("GET", "/", fresh=True, with_key=False, headers={"Connection": "close"})
        if answer.status >= 500:
            check(answer)
        return answer

    def try_key(self, task_id: int) -> bool | None:
        """Tell whether the key is accepted, without claiming a task: a status that is none is sent for a task.

        Args:
            task_id: a task of this machine, or any number if it has none.

        Returns:
            true if the server got as far as looking at the status, ``None`` if it refuses this machine for this task,
            which a server also does with the right key if the task is not this machine's.

        Raises:
            ServerError: no answer.
        """
        answer = self._transport.send("POST", f"/training-tasks/{task_id}/status", json={"Status": "none"})
        if answer.status >= 500 or answer.is_html:
            check(answer)
        return None if answer.status in (401, 403, 407) else True


def idempotency_key(task_id: int, name: str, content: bytes) -> str:
    """Return the SHA-256 over task, name and content that makes an upload the same upload."""
    seal = hashlib.sha256(f"{task_id}\n{name}\n".encode())
    seal.update(hashlib.sha256(content).digest())
    return seal.hexdigest()


def check_name(name: str) -> None:
    """Refuse a name that servers, browsers or shells could read in more than one way.

    Raises:
        StoreError: not 1 to 150 letters, digits and ``. _ + -``, beginning with a letter or digit.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{name[:60]!r} is no name for an upload",
            "take letters, digits and . _ + - only, at most 150, beginning with a letter or digit",
        )


def task_id_of(raw: bytes) -> int:
    """Return the number of the task in a server's answer, also if the rest of it cannot be read.

    Raises:
        AnswerLost: the answer holds no number; a task may have been assigned that nobody can name.
    """
    try:
        task = json.loads(raw)
        number = task.get("ID") if isinstance(task, dict) else None
    except (ValueError, RecursionError):
        found = _FIRST_KEY_IS_ID.match(raw)
        number = int(found[1]) if found else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_TASK_ID:
        raise AnswerLost(
            "the server gave a task without a number", "ask its administrator which task stays in Training"
        )
    return number


def _json_or_text(answer: Answer) -> Any:
    try:
        value = json.loads(answer.body)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return answer.text()
    return value


def _no_matter() -> None:
    """A lost answer changes nothing where repeating does no harm."""


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
