"""A secret that does not show itself: masked wherever it is printed, and removed from texts that leave the machine."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from pidml.atomic import atomic_file

MASK = "****"
#: Variables of this machine's configuration that programs of others need not see.
PRIVATE = ("MACHINE_SECRET_KEY", "MACHINE_ID", "ALICETRAINT_BASE_URL")
_CHUNK = 1024 * 1024


class Secret:
    """A secret text; ``str``, ``repr`` and formatting show ``****``, pickling and copying into JSON fail.

    >>> key = Secret("correct horse")
    >>> f"{key} {key!r}", key.reveal()
    ("**** Secret('****')", 'correct horse')
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself; for the header of a request and the environment of a child, nothing else."""
        return self._text

    def mask(self, text: str) -> str:
        """Return ``text`` with every occurrence of the secret replaced by ``****``.

        >>> Secret("horse").mask("a horse")
        'a ****'
        """
        return text.replace(self._text, MASK) if self._text else text

    def mask_bytes(self, content: bytes) -> bytes:
        """Return ``content`` with every occurrence of the secret replaced by ``****``."""
        return content.replace(self._text.encode(), MASK.encode()) if self._text else content

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __format__(self, specification: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a program of others: without the machine's key and address."""
    return {name: value for name, value in environ.items() if name not in PRIVATE}


def mask_file(path: Path, secret: Secret) -> bool:
    """Mask a secret in a file, of any size, that a program wrote it into; tell whether it was there."""
    pattern = secret.reveal().encode()
    if not path.exists() or not any(pattern in piece for piece in _overlapping(path, len(pattern))):
        return False
    with atomic_file(path) as temporary, path.open("rb") as source, temporary.open("wb") as target:
        held = b""
        while chunk := source.read(_CHUNK):
            held = secret.mask_bytes(held + chunk)
            done = max(0, len(held) - len(pattern) + 1)
            target.write(held[:done])
            held = held[done:]
        target.write(held)
    return True


def _overlapping(path: Path, overlap: int) -> Iterator[bytes]:
    """Yield a file in pieces that share their ends, so that what lies across a border is in one of them."""
    held = b""
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield held + chunk
            held = (held + chunk)[-overlap:]
