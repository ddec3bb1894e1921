"""Files over HTTP and HTTPS, resumed where they broke off if the server can and the content is still the same."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from pidml.errors import DownloadError, InputMissing
from pidml.fetch.redaction import redacted, redacted_text
from pidml.fetch.transfer import CHUNK, Request, Transfer, TransientError, require_space, require_stated_size, save

_MAX_REDIRECTS = 5
_RETRYABLE = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def transfer(request: Request) -> Transfer:
    """Download into the partial file, going on from what is there if that is safe.

    Raises:
        InputMissing: 404 or 410.
        DownloadError: another refusal, or a redirect that is not followed.
        ChecksumMismatch: the announced size is not the one that the job states.
        DiskFull: the disk cannot hold it.
        TransientError: anything that may go away.
    """
    offset, validator = request.partial.resumable(request.source.address, bool(request.checksums))
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    with requests.Session() as session:
        try:
            with _get(session, request, headers) as response:
                return _receive(request, response, offset, validator)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError) as error:
            raise DownloadError(f"{request.source.shown} is no valid address", "correct it in the job") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise TransientError(f"{type(error).__name__}: {redacted_text(str(error))}") from error


def _get(session: requests.Session, request: Request, headers: dict[str, str]) -> requests.Response:
    """Follow redirects by hand: requests would also go from https to http."""
    address, timeout = request.source.address, (request.options.connect_timeout, request.options.read_timeout)
    for _ in range(_MAX_REDIRECTS + 1):
        response = session.get(address, headers=headers, stream=True, timeout=timeout, allow_redirects=False)
        location = response.headers.get("Location")
        if response.status_code not in (301, 302, 303, 307, 308) or location is None:
            return response
        response.close()
        origin, address = urlsplit(address).scheme, urljoin(address, location)
        target = urlsplit(address).scheme
        if target != origin and (origin, target) != ("http", "https"):
            raise DownloadError(
                f"{request.source.shown} redirects from {origin} to {redacted(address)[:200]!r}, which is not followed",
                "name the final address in the job if it can be trusted",
            )
    raise DownloadError(f"{request.source.shown} redirects more than {_MAX_REDIRECTS} times", "name the final address")


def _receive(request: Request, response: requests.Response, offset: int, validator: str) -> Transfer:
    if response.status_code == 416:
        request.partial.discard()
        raise TransientError(f"the server has no byte {offset} any more (416); starting again")
    _require_success(request, response)
    found = _validator(response)
    if response.status_code == 206:
        total = _resumed_total(request, response, offset)
        if validator and found and found != validator:
            request.partial.discard()
            raise TransientError("the content changed since the download began; starting again")
    else:
        offset, total = 0, _length(response)
    require_stated_size(request, total)
    expected = total if total is not None else request.size
    if expected is not None:
        place = request.partial.path.parent
        already = request.partial.path.stat().st_blocks * 512  # freed or reused by this download
        require_space(place, max(0, expected - already), request.options.reserve, request.source.shown)
    stream = request.partial.begin(request.source.address, found, expected, offset)
    done = save(request, _chunks(response), stream, offset, expected)
    if expected is not None and done < expected:
        raise TransientError(f"the connection ended after {done} of {expected} B")
    stated = response.headers.get("X-Checksum-Sha256", "").strip()
    checksums = (f"sha256:{stated.lower()}",) if _SHA256.fullmatch(stated) else ()
    return Transfer(request.partial.path, checksums, offset)


def _require_success(request: Request, response: requests.Response) -> None:
    status, shown = response.status_code, request.source.shown
    if status in (404, 410):
        raise InputMissing(f"{shown} does not exist ({status})", "check the path in the job")
    if status in _RETRYABLE:
        raise TransientError(f"the server answers {status}", _retry_after(response.headers.get("Retry-After", "")))
    if status not in (200, 206):
        hint = "check the credentials and who may read it" if status in (401, 403) else "ask who runs the server"
        raise DownloadError(f"{shown} is refused: the server answers {status}", hint)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise DownloadError(f"{shown} comes encoded, though the plain file was asked for", "ask who runs the server")


def _resumed_total(request: Request, response: requests.Response, offset: int) -> int | None:
    """Return the size of the whole file from a 206 answer that goes on at ``offset``."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not offset or match is None or int(match[1]) != offset:
        request.partial.discard()
        raise TransientError("the server sends another range than asked for; starting again")
    return None if match[3] == "*" else int(match[3])


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def _validator(response: requests.Response) -> str:
    """Return what may stand in ``If-Range``: a strong ETag, else the date of the last change."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified", "")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    while chunk := response.raw.read(CHUNK, decode_content=False):
        yield chunk


def _retry_after(text: str) -> float | None:
    """Return the pause in s that a ``Retry-After`` header asks for, as seconds or as a date."""
    if re.fullmatch(r"\d{1,9}", text.strip()):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
