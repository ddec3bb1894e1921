"""Machine keys: random secrets, kept as Argon2id hashes and checked in constant time."""

from __future__ import annotations

import hmac
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

KEY_BYTES = 32
MAX_KEY_LENGTH = 256


def new_key() -> str:
    """Return a fresh machine key: 32 random bytes as URL-safe text."""
    return secrets.token_urlsafe(KEY_BYTES)


class KeyVerifier:
    """Checks keys against Argon2id hashes; a key once verified is recognised without the cost of Argon2id.

    Remembered is not the key but its HMAC-SHA256 under a random key of this process, by stored hash: a machine whose
    hash changes is verified anew. One Argon2id computation runs at a time, so that a flood of wrong keys costs one core
    and 64 MiB, not all of them.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._process_key = secrets.token_bytes(32)
        self._verified: dict[str, bytes] = {}
        self._argon2 = threading.Lock()

    def hash(self, key: str) -> str:
        """Return the Argon2id hash of ``key``, with its salt and cost, as text to store."""
        return self._hasher.hash(key)

    def verify(self, stored_hash: str, key: str) -> bool:
        """Tell whether ``key`` is the one that ``stored_hash`` was made of."""
        if not key or len(key) > MAX_KEY_LENGTH:
            return False
        mark = hmac.digest(self._process_key, key.encode(), "sha256")
        known = self._verified.get(stored_hash)
        if known is not None:
            return hmac.compare_digest(known, mark)
        with self._argon2:
            try:
                self._hasher.verify(stored_hash, key)
            except (VerificationError, InvalidHashError):
                return False
        self._verified[stored_hash] = mark
        return True
