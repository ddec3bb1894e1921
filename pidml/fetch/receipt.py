"""What is written down about a fetched file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class FetchReceipt:
    """Where a file came from and how far it was verified.

    Args:
        path: the path that the job names, without credentials.
        source: the address that the content came from, without credentials.
        method: ``file``, ``http``, ``fsspec`` (XRootD or S3), ``alien_cp``, ``sandbox`` or ``already there``.
        size: size of the file, in bytes.
        size_verified: whether the job's catalogue states a size (then it was compared).
        checksums: the checksums, ``algorithm:hexadecimal``, that were computed from the file and agreed.
        attempts: how many times a source was tried, the successful one included.
        resumed_from: bytes taken over from an earlier, interrupted download.
        seconds: wall-clock time, in s.
    """

    path: str
    source: str
    method: str
    size: int
    size_verified: bool
    checksums: tuple[str, ...]
    attempts: int
    resumed_from: int
    seconds: float

    @property
    def checksum_verified(self) -> bool:
        """Whether at least one checksum was compared."""
        return bool(self.checksums)

    def as_json(self) -> dict[str, Any]:
        """Return the receipt as plain data for provenance."""
        return {**asdict(self), "checksums": list(self.checksums)}
