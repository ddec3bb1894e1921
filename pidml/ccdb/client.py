"""What CCDB is asked and told: the time interval of a run, and new objects with their interval of validity.

Every request has timeouts and is tried again where that can help. An upload whose answer was lost is repeated: a second
copy of the same object with the same validity does no harm, a lost one does. Redirects are never followed, so that the
client certificate is shown to the configured host only.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from pidml.alicetraint.transport import Retry, Timeouts, with_retries
from pidml.ccdb.access import Access
from pidml.errors import AnswerLost, ConfigError, KeyRefused, ServerError, ServerRefused

RUN_INFORMATION = "RCT/Info/RunInformation"
_PATH = re.compile(r"[A-Za-z0-9_][\w.+-]*(/[A-Za-z0-9_][\w.+-]*)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][\w+-]*", re.ASCII)
_MAX_PATH, _MAX_TIME = 500, 2**63 - 1
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_AGENT = "pidml"
_SHOWN = 200

_T = TypeVar("_T")


@dataclass(frozen=True)
class Validity:
    """An interval of time, ms since 1970-01-01 UTC: from ``start`` up to, not including, ``end``."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 < self.start < self.end <= _MAX_TIME:
            raise ValueError(f"no interval of time in ms: {self.start} … {self.end}")

    def union(self, other: Validity) -> Validity:
        """Return the smallest interval that covers both."""
        return Validity(min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True)
class Stored:
    """What CCDB said when it stored an object.

    Attributes:
        url: address that it was sent to.
        location: address of the object that the answer names; empty if it names none.
    """

    url: str
    location: str = ""


class _Adapter(HTTPAdapter):
    """Connections with a TLS context of our own."""

    def __init__(self, access: Access) -> None:
        self._access = access
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._access.context(), **kwargs)


class CcdbClient:
    """Speaks to one CCDB.

    Args:
        base: its address, ``https://host[:port][/path]``; plain http is for reading, and for test instances.
        access: certificate and authorities.
        timeouts: of each request.
        retry: how often and how patiently.
        wait: waits for seconds; returns true to give up. Sleeps by default.

    Raises:
        ConfigError: the address, certificate or authorities cannot be used.
    """

    def __init__(
        self,
        base: str,
        access: Access | None = None,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.base = check_base(base)
        self.access = access or Access()
        self.timeouts = timeouts or Timeouts()
        self.retry = retry or Retry()
        self._wait = wait or threading.Event().wait
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(max_retries=0))
        if self.base.startswith("https"):
            self._session.mount("https://", _Adapter(self.access))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def run_validity(self, run: int) -> Validity:
        """Return start and end of a run, from the headers ``SOR`` and ``EOR`` of its run information.

        Raises:
            ServerRefused: CCDB knows no such run.
            ServerError: CCDB cannot be reached, or its answer does not say when the run was.
        """
        if not 0 < run < 10**9:
            raise ServerRefused(f"{run} is no run number", "a run number has at most nine digits")
        headers = self._retried(lambda: self._run_headers(run))
        times = [headers.get(name, "").strip() for name in ("SOR", "EOR")]
        try:
            if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in times):
                raise ValueError
            return Validity(int(times[0]), int(times[1]))
        except ValueError:
            shown = ", ".join(f"{name} {text[:40]!r}" for name, text in zip(("SOR", "EOR"), times, strict=True))
            raise ServerError(
                f"CCDB does not say when run {run} began and ended ({shown})",
                "has the run ended? else give --first-run and --last-run that have",
            ) from None

    def upload(self, path: str, name: str, validity: Validity, file: Path) -> Stored:
        """Store a file as a new object.

        Args:
            path: folder in CCDB.
            name: name of the object, without extension.
            validity: interval in which it is used.
            file: its content, which has to fit into memory.

        Raises:
            ConfigError: path or name are malformed, or there is no certificate for an https address.
            KeyRefused: the certificate may not store there.
            ServerRefused: CCDB does not take the object.
            ServerError: CCDB cannot be reached; nothing is known to be stored.
        """
        check_place(path, name)
        if self.base.startswith("https"):
            self.access.require()
        url = f"{self.base}/{path}/{name}/{validity.start}/{validity.end}"
        content = file.read_bytes()

        def send() -> Stored:
            with self._request("POST", url, files={"blob": (file.name, content)}) as response:
                _check(response, 201)
                location = response.headers.get("Location") or response.headers.get("Content-Location") or ""
                return Stored(url, location[:_SHOWN] if location.isprintable() else "")

        return self._retried(send)

    def _run_headers(self, run: int) -> dict[str, str]:
        # CCDB answers some questions with a redirect to the object; what is asked for is in this answer's headers.
        with self._request("HEAD", f"{self.base}/{RUN_INFORMATION}/{run}") as response:
            if response.status_code == 404:
                raise ServerRefused(f"CCDB knows no run {run}", "check the run number")
            if not 300 <= response.status_code < 400:
                _check(response, 200, 204)
            return {name.upper(): value for name, value in response.headers.items()}

    def _retried(self, act: Callable[[], _T]) -> _T:
        return with_retries(act, self.retry, self._wait, lost=lambda: None)

    def _request(self, method: str, url: str, **content: Any) -> requests.Response:
        where = urlsplit(self.base).netloc
        try:
            return self._session.request(
                method,
                url,
                auth=lambda request: request,  # keeps requests from taking a password for this host from ~/.netrc
                headers={"User-Agent": _AGENT, "Accept-Encoding": "identity"},
                timeout=(self.timeouts.connect, self.timeouts.read),
                verify=self.access.verify(),
                allow_redirects=False,
                stream=True,
                **content,
            )
        except requests.exceptions.SSLError:
            raise ServerRefused(
                f"no secure connection to {where}: its certificate or ours is not accepted",
                "name the GRID's authorities in PIDML_CCDB_CA (on CVMFS: /cvmfs/alice.cern.ch/etc/grid-security/"
                "certificates), and check that your certificate is valid",
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            reason = "no answer in time" if isinstance(error, requests.Timeout) else "the connection failed"
            raise AnswerLost(f"{where}: {reason}", "is CCDB up, and the network?") from None


def _check(response: requests.Response, *expected: int) -> None:
    status = response.status_code
    if status in expected:
        return
    said = _text(response)
    if status in (401, 403):
        raise KeyRefused(f"CCDB does not accept this certificate here ({said})", "may it write to this path?")
    if 300 <= status < 400:
        raise ServerRefused(
            f"CCDB redirects to {response.headers.get('Location', '?')[:_SHOWN]!r}, which is not followed ({status})",
            "if that is the right place, name it in --ccdb",
        )
    if status in _LATER:
        error = ServerError(f"CCDB asks to try later ({said})", "try again later")
        after = response.headers.get("Retry-After", "").strip()
        error.retry_after = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None
        raise error
    raise ServerRefused(f"CCDB refuses ({said})", "the answer says why; trying again does not help")


def _text(response: requests.Response) -> str:
    try:
        body = response.raw.read(4 * _SHOWN) or b""
    except (urllib3.exceptions.HTTPError, OSError):
        body = b""
    text = body.decode("utf-8", "replace")[:_SHOWN]
    return f"{response.status_code} {' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())}".strip()


def check_base(base: str) -> str:
    """Return an address of a CCDB without a slash at the end.

    Raises:
        ConfigError: it is no such address.
    """
    parts = urlsplit(base)
    try:
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        port_fits = False
    plain = base.isascii() and base.isprintable() and " " not in base
    extras = parts.username or parts.password or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or not (port_fits and plain) or extras:
        shown = "an address with a user or password" if parts.username or parts.password else repr(base[:_SHOWN])
        raise ConfigError(f"{shown} is no address of a CCDB", "allowed: https://host[:port][/path]")
    return base.rstrip("/")


def check_place(path: str, name: str) -> None:
    """Check folder and name of an object.

    Raises:
        ConfigError: they are malformed.
    """
    if not _PATH.fullmatch(path) or len(path) > _MAX_PATH:
        raise ConfigError(
            f"{path[:_SHOWN]!r} is no path in CCDB",
            "for example Users/m/me/PIDML: letters, digits and _ . + - between slashes",
        )
    if not _NAME.fullmatch(name) or len(name) > _MAX_PATH:
        raise ConfigError(
            f"{name[:_SHOWN]!r} is no name of an object in CCDB", "letters, digits and _ + -, no extension"
        )


def run_validity(base: str, run: int, access: Access | None = None) -> Validity:
    """Return start and end of a run; see :meth:`CcdbClient.run_validity`."""
    with CcdbClient(base, access) as client:
        return client.run_validity(run)


def upload(base: str, path: str, name: str, validity: Validity, file: Path, certificate: Path, key: Path) -> Stored:
    """Store a file as a new object; see :meth:`CcdbClient.upload`."""
    with CcdbClient(base, Access(certificate, key)) as client:
        return client.upload(path, name, validity, file)
