"""From the path that a job names to the sources to try, in order; malformed and forbidden paths are refused here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pidml.errors import PathRefused
from pidml.fetch.options import FetchOptions
from pidml.fetch.redaction import redacted

# Only these characters: alien_cp splits its arguments at ';' and line ends, runs what follows '!' or ' | ' in a shell,
# and reads '@' and ',' as storage specifications.
_LFN = re.compile(r"/alice(/[A-Za-z0-9_.+=-]+)+", re.ASCII)
_LFN_BEGINNING = re.compile(r"/alice/(sim|data|cern\.ch)/")
# The period of pidml.simulation.sandbox, which is not imported here: it needs NumPy and the simulation.
_SANDBOX = "/LHC26sandbox/"
_MAX_LENGTH = 4096


@dataclass(frozen=True)
class Source:
    """One place to get a file from.

    Args:
        method: ``file``, ``http``, ``fsspec``, ``alien_cp`` or ``sandbox``.
        address: full address (may hold credentials), local path or LFN.
        roots: for ``file``: the folders that the path must lie in after following links; ``None``: anywhere.
    """

    method: str
    address: str
    roots: tuple[Path, ...] | None = None

    @property
    def shown(self) -> str:
        """The address without credentials, for logs, errors and receipts."""
        return f"alien://{self.address}" if self.method == "alien_cp" else redacted(self.address)


def sources(path: str, options: FetchOptions) -> list[Source]:
    """Return the sources of a file, the preferred one first.

    Raises:
        PathRefused: the path is malformed, of an unknown scheme, or outside the folders that are allowed.
    """
    _refuse_hostile(path)
    found: list[Source] = []
    for address in [path, *_alternatives(path, options)]:
        _refuse_hostile(address)
        found += _of_address(address, options)
    return list(dict.fromkeys(found))


def _refuse_hostile(path: str) -> None:
    shown = repr(redacted(path)[:120])
    decoded = unquote(path)
    if len(path) > _MAX_LENGTH:
        raise PathRefused(f"path {shown}… has {len(path)} characters", f"at most {_MAX_LENGTH} are allowed")
    if any(ord(character) < 32 or ord(character) == 127 for character in path + decoded):
        raise PathRefused(f"path {shown} holds control characters", "remove them")
    if "\\" in path or ".." in decoded.split("/"):
        raise PathRefused(f"path {shown} holds '..' or a backslash", "write the path out in full")


def _alternatives(path: str, options: FetchOptions) -> list[str]:
    return [
        alternative + path.removeprefix(beginning)
        for beginning, alternatives in options.fallbacks
        if path.startswith(beginning)
        for alternative in alternatives
    ]


def _of_address(address: str, options: FetchOptions) -> list[Source]:
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError as error:
        raise PathRefused(f"address {redacted(address)[:120]!r} is malformed: {error}", "correct it") from error
    if _LFN_BEGINNING.match(address):
        return _of_lfn(address, options)
    if parts.scheme == "alien":
        return _of_lfn(address.removeprefix("alien:").removeprefix("//"), options)
    if parts.scheme in ("http", "https", "root", "s3"):
        if not host:
            raise PathRefused(f"address {redacted(address)[:120]!r} names no host", "write scheme://host/path")
        return [Source("http" if parts.scheme.startswith("http") else "fsspec", address)]
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise PathRefused(f"address {address[:120]!r} is no local file", "write file:///absolute/path")
        return [Source("file", unquote(parts.path), options.file_roots)]
    if "://" in address:
        raise PathRefused(
            f"path {redacted(address)[:120]!r} has a scheme that is not known",
            "allowed: an LFN (/alice/…), alien://, root://, https://, http://, s3://, file:// or a local path",
        )
    return [Source("file", address, options.file_roots)]


def _of_lfn(lfn: str, options: FetchOptions) -> list[Source]:
    if not _LFN.fullmatch(lfn):
        raise PathRefused(
            f"logical file name {lfn[:120]!r} is malformed",
            "it begins with /alice/ and holds letters, digits and _.+=-/",
        )
    found = []
    for entry in options.grid:
        if entry in ("alien", "sandbox"):
            if (entry == "sandbox") == (_SANDBOX in lfn):
                found.append(Source("sandbox" if entry == "sandbox" else "alien_cp", lfn))
        elif "://" in entry:
            scheme = urlsplit(entry).scheme
            method = "http" if scheme.startswith("http") else "fsspec"
            found.append(Source(method, entry.rstrip("/") + quote(lfn)))
        else:
            folder = Path(entry).expanduser()
            found.append(Source("file", str(folder / lfn.lstrip("/")), (folder,)))
    if not found:
        raise PathRefused(
            f"{lfn} is not on the GRID that PIDML_GRID names ({', '.join(map(redacted, options.grid))})",
            "files of the period LHC26sandbox need 'sandbox' in PIDML_GRID or an address that serves them",
        )
    return found
