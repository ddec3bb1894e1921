"""Identity of outputs: a short digest over exactly what made them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DIGEST_LENGTH = 12


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys and no spaces, so that equal settings give equal text.

    >>> canonical_json({"b": 1, "a": [1.0, None]})
    '{"a":[1.0,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any, length: int = DIGEST_LENGTH) -> str:
    """Return the first ``length`` hexadecimal digits of the SHA-256 of ``value``'s canonical JSON.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def file_checksum(path: Path | str, algorithm: str = "sha256") -> str:
    """Return the hexadecimal checksum of a file's content, read in chunks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
