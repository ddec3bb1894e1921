"""A secret that does not show itself: masked wherever it is printed, and removed from texts that leave the machine."""

from __future__ import annotations

import hmac
from typing import NoReturn

MASK = "****"


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
