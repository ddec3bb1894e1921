"""Files on XRootD (``root://``) and S3 (``s3://``) through fsspec, resumed where they broke off."""

from __future__ import annotations

import errno
import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from pidml.errors import DownloadError, InputMissing, SpecError, ToolMissing
from pidml.fetch.checksum import split
from pidml.fetch.redaction import redacted_text
from pidml.fetch.transfer import CHUNK, Request, Transfer, TransientError, require_space, require_stated_size, save

_log = logging.getLogger(__name__)
_PACKAGES = {"root": ("fsspec_xrootd", "xrootd"), "s3": ("s3fs", "s3")}
_BLOCK = 8 * CHUNK
_ABSENT = re.compile(r"\[3011\]|[Nn]o such file|[Nn]o such key|NoSuchKey|NoSuchBucket|\b404\b")
_DENIED = re.compile(
    r"\[30(10|30)\]|[Pp]ermission denied|[Aa]uth failed|AccessDenied|InvalidAccessKey|SignatureDoes|NoCredentials"
)


def transfer(request: Request) -> Transfer:
    """Download into the partial file, going on from what is there if that is safe.

    Raises:
        ToolMissing: the package for this kind of address is not installed.
        InputMissing: there is no such file or object.
        DownloadError: access is refused.
        ChecksumMismatch: the size is not the one that the job states.
        DiskFull: the disk cannot hold it.
        TransientError: anything that may go away.
    """
    scheme = request.source.address.partition("://")[0]
    module, extra = _PACKAGES[scheme]
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ToolMissing(
            f"{request.source.shown} needs the package {module.replace('_', '-')}, which is not installed",
            f"pip install 'pidml[{extra}]'",
        ) from error
    try:
        return _receive(request, scheme)
    except _failures(scheme) as error:
        raise _explained(request, error) from error


def _receive(request: Request, scheme: str) -> Transfer:
    system, path = fsspec.core.url_to_fs(request.source.address, **_settings(request, scheme))
    info = system.info(path)
    if info.get("type") != "file":
        raise DownloadError(f"{request.source.shown} is not a file", "name a file, not a folder")
    total, validator = int(info["size"]), _validator(info)
    require_stated_size(request, total)
    offset, known = request.partial.resumable(request.source.address, bool(request.checksums))
    if known != validator:
        offset = 0
    place = request.partial.path.parent
    require_space(place, total - offset, request.options.reserve, request.source.shown)
    checksums = () if request.checksums else _served_checksum(system, scheme, path)
    with _opened(system, path) as remote:
        remote.seek(offset)
        stream = request.partial.begin(request.source.address, validator, total, offset)
        done = save(request, _chunks(remote), stream, offset, total)
    if done < total:
        raise TransientError(f"the file ended after {done} of {total} B")
    return Transfer(request.partial.path, checksums, offset)


@contextmanager
def _opened(system: Any, path: str) -> Iterator[Any]:
    """Open a remote file for reading; a failure to close it matters to nobody, and would hide why reading failed."""
    remote = system.open(path, "rb", cache_type="none")
    try:
        yield remote
    finally:
        try:
            remote.close()
        except OSError as error:
            remote.closed = True  # else it is tried again when the object is collected
            _log.info("closing failed: %s", redacted_text(" ".join(str(error).split())))


def _settings(request: Request, scheme: str) -> dict[str, Any]:
    """Return the settings of the file system; one is made for each attempt, so that no cache or dead session stays."""
    options = request.options
    common: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "root":
        return {**common, "timeout": max(1, min(int(options.read_timeout), 3600)), "locate_all_sources": False}
    limits = {
        "connect_timeout": options.connect_timeout,
        "read_timeout": options.read_timeout,
        "retries": {"max_attempts": 1},  # tried again by this package, elsewhere if there is an elsewhere
    }
    return {**common, "config_kwargs": limits}


def _validator(info: dict[str, Any]) -> str:
    """Return the server's mark of this version of the content."""
    if tag := info.get("ETag"):
        return str(tag)
    return f"changed at {info['mtime']}" if info.get("mtime") else ""


def _served_checksum(system: Any, scheme: str, path: str) -> tuple[str, ...]:
    """Return the checksum that an XRootD server knows, if it does; most GRID storage has adler32."""
    if scheme != "root":
        return ()
    try:
        algorithm, digits = system.checksum(path)
        return (":".join(split(f"{algorithm}:{digits}")),)
    except (OSError, SpecError) as error:
        _log.info("%s gives no checksum: %s", scheme, redacted_text(str(error)))
        return ()


def _chunks(remote: Any) -> Iterator[bytes]:
    while chunk := remote.read(_BLOCK):
        yield chunk


def _failures(scheme: str) -> tuple[type[Exception], ...]:
    if scheme == "root":
        return (OSError, ValueError)
    botocore, aiohttp = importlib.import_module("botocore.exceptions"), importlib.import_module("aiohttp")
    return (OSError, ValueError, aiohttp.ClientError, botocore.BotoCoreError, botocore.ClientError)


def _explained(request: Request, error: Exception) -> Exception:
    """Return the error to raise for what fsspec, XRootD or S3 say."""
    shown, text = request.source.shown, redacted_text(" ".join(f"{type(error).__name__}: {error}".split()))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return error
    if isinstance(error, FileNotFoundError) or _ABSENT.search(text):
        return InputMissing(f"{shown} does not exist ({text})", "check the path in the job")
    if isinstance(error, PermissionError) or _DENIED.search(text):
        return DownloadError(f"{shown} is refused: {text}", "check the credentials and who may read it")
    return TransientError(text)
