"""Checksums of files: parsing, computing, comparing."""

from __future__ import annotations

import hashlib
import importlib
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pidml.errors import ChecksumMismatch, SpecError, ToolMissing

_CHUNK = 1 << 20
#: Number of hexadecimal digits of each algorithm.
DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "adler32": 8, "crc32c": 8}


class Hasher(Protocol):
    """What :mod:`hashlib` objects and the classes below have in common."""

    def update(self, data: bytes, /) -> None:
        """Take in more of the content."""

    def hexdigest(self) -> str:
        """Return the checksum of what was taken in, in lower-case hexadecimal."""


class _Adler32:
    def __init__(self) -> None:
        self.value = 1

    def update(self, data: bytes, /) -> None:
        self.value = zlib.adler32(data, self.value)

    def hexdigest(self) -> str:
        return f"{self.value:08x}"


class _Crc32c:
    def __init__(self, extend: Callable[[int, bytes], int]) -> None:
        self.value = 0
        self.extend = extend

    def update(self, data: bytes, /) -> None:
        self.value = self.extend(self.value, data)

    def hexdigest(self) -> str:
        return f"{self.value:08x}"


def _crc32c() -> _Crc32c:
    """Return a hasher from whichever package is there; both are optional."""
    modules: dict[str, Callable[[Any, int, bytes], int]] = {
        "google_crc32c": lambda module, value, data: int(module.extend(value, data)),
        "crc32c": lambda module, value, data: int(module.crc32c(data, value)),
    }
    for name, extend in modules.items():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        return _Crc32c(partial(extend, module))
    raise ToolMissing(
        "a crc32c checksum is to be verified, but no package that computes it is installed",
        "install one: pip install google-crc32c",
    )


def split(checksum: str) -> tuple[str, str]:
    """Return algorithm and hexadecimal digits of a checksum; adler32 and crc32c are filled with leading zeros.

    >>> split("adler32:1a2b3c")
    ('adler32', '001a2b3c')

    Raises:
        SpecError: the algorithm is unknown or the digits are not as many as it has.
    """
    algorithm, _, digits = checksum.partition(":")
    digits = digits.lower()
    if algorithm in ("adler32", "crc32c"):
        digits = digits.zfill(8)  # catalogues drop leading zeros of these
    if algorithm not in DIGITS or len(digits) != DIGITS[algorithm] or set(digits) - set("0123456789abcdef"):
        raise SpecError(
            f"checksum {checksum[:100]!r} is malformed",
            f"write algorithm:hexadecimal; digits: {', '.join(f'{name} {count}' for name, count in DIGITS.items())}",
        )
    return algorithm, digits


def hasher(algorithm: str) -> Hasher:
    """Return a new hasher of ``algorithm``.

    Raises:
        ToolMissing: crc32c without a package that computes it.
    """
    if algorithm == "adler32":
        return _Adler32()
    if algorithm == "crc32c":
        return _crc32c()
    return hashlib.new(algorithm, usedforsecurity=False)


def compute(path: Path, algorithms: set[str]) -> dict[str, str]:
    """Return algorithm → checksum of a file's content, reading it once.

    Raises:
        ToolMissing: crc32c without a package that computes it.
    """
    hashers = {algorithm: hasher(algorithm) for algorithm in sorted(algorithms)}
    if hashers:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                for each in hashers.values():
                    each.update(chunk)
    return {algorithm: each.hexdigest() for algorithm, each in hashers.items()}


def verify(path: Path, size: int | None, checksums: tuple[str, ...], shown: str) -> tuple[str, ...]:
    """Compare a file with what is stated about it and return the checksums that agreed.

    Args:
        path: the file.
        size: stated size in bytes, if any.
        checksums: stated checksums, ``algorithm:hexadecimal``.
        shown: how errors call the file.

    Raises:
        ChecksumMismatch: size or a checksum differs.
        SpecError: a checksum is malformed.
        ToolMissing: crc32c without a package that computes it.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise ChecksumMismatch(
            f"{shown} has {found} B, the catalogue says {size} B",
            "the copy is damaged or the catalogue is wrong: check the size, or name another copy",
        )
    stated = {split(checksum) for checksum in checksums}
    computed = compute(path, {algorithm for algorithm, _ in stated})
    for algorithm, digits in sorted(stated):
        if computed[algorithm] != digits:
            raise ChecksumMismatch(
                f"{shown} has {algorithm} {computed[algorithm]}, {digits} is stated",
                "the copy is damaged or the catalogue is wrong: check the checksum, or name another copy",
            )
    return tuple(f"{algorithm}:{digits}" for algorithm, digits in sorted(stated))
