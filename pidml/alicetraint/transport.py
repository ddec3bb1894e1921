"""One HTTP request to the server, and what its failure means for the next one.

Three things can go wrong, and they are different errors, because what to do next differs:

- :class:`~pidml.errors.ServerError`: nothing happened on the server (it was not reached, or it turned the request
  away for now); trying again is safe.
- :class:`~pidml.errors.AnswerLost`: the server may have acted, its answer did not arrive whole.
- :class:`~pidml.errors.ServerRefused` (:class:`~pidml.errors.KeyRefused`): it understood and said no.
"""

from __future__ import annotations

import email.utils
import http.client
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from pidml.errors import AnswerLost, KeyRefused, ServerError, ServerRefused
from pidml.settings import ServerAddress

MAX_ANSWER_BYTES = 1024 * 1024
_CHUNK = 65536
_SHOWN = 300
_KEY_HEADER = "Secret-Id"
#: Answers that a proxy or a crashed handler may give after the server has acted.
_UNCERTAIN = frozenset({500, 502, 504})
_LATER = frozenset({408, 425, 429})
_KEY = frozenset({401, 403, 407})
_LONGEST_RETRY_AFTER = 3600.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, between two pieces of an answer, and for an answer as a whole."""

    connect: float = 10.0
    read: float = 60.0
    total: float = 900.0


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a call tries: waits double from ``first`` to ``longest`` seconds, with jitter."""

    attempts: int = 5
    first: float = 1.0
    longest: float = 60.0

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Return the seconds to wait after try number ``attempt`` (from 0); never less than the server asked for."""
        backoff = min(self.longest, self.first * 2.0 ** min(attempt, 30))
        return max(backoff * random.uniform(0.5, 1.0), retry_after or 0.0)


@dataclass(frozen=True)
class Answer:
    """A complete answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_html(self) -> bool:
        """Tell whether this is a web page: the server's own answers never are, a proxy's are."""
        kind = self.headers.get("content-type", "").lower()
        return "html" in kind or self.body.lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))

    def text(self) -> str:
        """Return the beginning of the body on one line, for a message."""
        if self.is_html:
            return "a web page, probably of a proxy"
        shown = self.body[:_SHOWN].decode("utf-8", "replace")
        return " ".join("".join(c if c.isprintable() else " " for c in shown).split())


class Transport:
    """Sends single requests with this machine's key.

    The key goes into a header of requests to the configured address only: redirects are never followed. Answers are
    read piece by piece up to a limit of size and time, and are never decompressed.
    """

    def __init__(self, address: ServerAddress, timeouts: Timeouts | None = None) -> None:
        self.address = address
        self.timeouts = timeouts or Timeouts()
        self._session = self._new_session()

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        fresh: bool = False,
        with_key: bool = True,
        limit: int = MAX_ANSWER_BYTES,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> Answer:
        """Send one request, once, and return the answer, whatever its status.

        Args:
            method: HTTP method.
            path: path below the base address.
            fresh: use a new connection. A kept one may have been cut meanwhile, which shows only after sending.
            with_key: send the machine's key.
            limit: largest answer, in bytes.
            headers: further headers.
            content: ``json``, ``data`` and ``files`` of :meth:`requests.Session.request`.

        Raises:
            ServerError: the server was not reached.
            AnswerLost: it may have been, but no complete answer came.
        """
        session = self._new_session() if fresh else self._session
        try:
            with self._explained(), self._request(session, method, path, with_key, headers, content) as response:
                body = self._body(response, limit)
                return Answer(response.status_code, response.headers, body)
        finally:
            if fresh:
                session.close()

    def _request(
        self,
        session: requests.Session,
        method: str,
        path: str,
        with_key: bool,
        headers: Mapping[str, str] | None,
        content: Mapping[str, Any],
    ) -> requests.Response:
        def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if with_key:
                request.headers[_KEY_HEADER] = self.address.secret.reveal()
            return request

        return session.request(
            method,
            f"{self.address.base_url}{path}",
            # An `auth` of our own keeps requests from taking a password for this host from ~/.netrc.
            auth=sign,
            headers={"Accept-Encoding": "identity", **(headers or {})},
            timeout=(self.timeouts.connect, self.timeouts.read),
            allow_redirects=False,
            stream=True,
            **content,
        )

    def _body(self, response: requests.Response, limit: int) -> bytes:
        if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise AnswerLost("the server compressed its answer although it was asked not to", "look at the proxy")
        deadline = time.monotonic() + self.timeouts.total
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK):
            body += chunk
            if len(body) > limit:
                raise AnswerLost(f"the server's answer is larger than {limit} bytes", "ask its administrator")
            if time.monotonic() > deadline:
                raise AnswerLost(
                    f"the server's answer took longer than {self.timeouts.total:g} s", "it may be overloaded"
                )
        return bytes(body)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        where = urlsplit(self.address.base_url).netloc
        try:
            yield
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            reason = self.address.secret.mask(_reason(error))
            if _not_sent(error):
                raise ServerError(
                    f"{where} cannot be reached: {reason}", "is the server up, and the network?"
                ) from None
            raise AnswerLost(f"no complete answer from {where}: {reason}", "it is tried again later") from None

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=2, max_retries=0))
        return session


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    queue: list[Any] = [error]
    while queue:
        item = queue.pop(0)
        if isinstance(item, BaseException) and item not in seen:
            seen.append(item)
            yield item
            queue += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]


def _not_sent(error: BaseException) -> bool:
    """Tell whether a request certainly did not reach the server: no connection, or none that could be trusted."""
    before_sending = (
        requests.ConnectTimeout,
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidHeader,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        urllib3.exceptions.NameResolutionError,
        urllib3.exceptions.ProxyError,
        ConnectionRefusedError,
    )
    return any(
        isinstance(cause, before_sending) or "CERTIFICATE_VERIFY_FAILED" in str(cause) for cause in _causes(error)
    )


def _reason(error: BaseException) -> str:
    """Return the innermost cause's text: the outer ones repeat it inside object representations."""
    texts = [str(cause).strip() or type(cause).__name__ for cause in _causes(error)]
    return min((text for text in texts if " object at " not in text), key=len, default=type(error).__name__)[:_SHOWN]


def check(answer: Answer, *expected: int) -> Answer:
    """Return ``answer`` if its status is expected, else raise what the status means.

    Raises:
        ServerError: turned away for now, or redirected: nothing was done.
        AnswerLost: the server or a proxy failed, perhaps after acting.
        KeyRefused: machine id or key (or the proxy's) are not accepted.
        ServerRefused: what was sent is not accepted.
    """
    status = answer.status
    if status in expected and not answer.is_html:
        return answer
    said = f"{status}: {answer.text()}" if answer.body else str(status)
    if status in _KEY:
        raise KeyRefused(
            f"the server refuses this machine ({said})",
            "check MACHINE_ID and MACHINE_SECRET_KEY against the server's page",
        )
    if 300 <= status < 400:
        raise ServerError(
            f"the server redirects to {answer.headers.get('location', '?')[:_SHOWN]!r}; the key is not sent there",
            "if that is the right place, set ALICETRAINT_BASE_URL to it",
        )
    if status in _UNCERTAIN:
        raise _busy(AnswerLost(f"the server failed ({said})", "it is tried again later"), answer)
    if status in _LATER or status >= 500:
        raise _busy(ServerError(f"the server asks to try later ({said})", "it is tried again later"), answer)
    if 400 <= status < 500:
        raise ServerRefused(f"the server refuses ({said})", "the answer says why; trying again does not help")
    raise AnswerLost(f"the server answered what the protocol does not know ({said})", "is ALICETRAINT_BASE_URL right?")


def _busy(error: ServerError, answer: Answer) -> ServerError:
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        date = email.utils.parsedate_tz(text) if text else None
        if date is None:
            return error
        seconds = email.utils.mktime_tz(date) - time.time()
    error.retry_after = min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)
    return error


def with_retries(
    act: Callable[[], _T],
    retry: Retry,
    wait: Callable[[float], bool],
    lost: Callable[[], None] | None = None,
) -> _T:
    """Return what ``act`` returns, trying again after failures that may pass.

    Args:
        act: the request and the check of its answer.
        retry: how often and how patiently.
        wait: waits for a number of seconds; returns true if the program is to stop, which ends the tries.
        lost: called for each answer lost, before the next try. ``None`` if the request must not be repeated then.

    Raises:
        ServerError: the last failure, when tries are used up or the server asks for more patience than one call has.
    """
    for attempt in range(retry.attempts):
        try:
            return act()
        except ServerRefused:
            raise
        except ServerError as error:
            if isinstance(error, AnswerLost):
                if lost is None:
                    raise
                lost()
            pause = retry.pause(attempt, error.retry_after)
            if attempt + 1 == retry.attempts or pause > max(retry.longest, 1.0) or wait(pause):
                raise
    raise AssertionError("Retry.attempts is at least 1")
