"""How many input files may be missing: the job's ``require`` rule, and the record of what was missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


def files_required(require: Literal["all"] | float, total: int) -> int:
    """Return how many of ``total`` files must be there; a fraction is rounded up, and one file is needed at least.

    >>> files_required("all", 7), files_required(0.9, 10), files_required(0.5, 3), files_required(0.01, 10)
    (7, 9, 2, 1)

    Args:
        require: ``"all"``, or the smallest fraction of the files that will do, in (0, 1].
        total: number of files that the job names, at least 1.

    Raises:
        ValueError: ``total`` or ``require`` is out of range.
    """
    if total < 1:
        raise ValueError(f"total = {total}: a job has at least one file")
    if require == "all":
        return total
    if not 0 < require <= 1:
        raise ValueError(f"require = {require}: allowed are 'all' and a fraction above 0 and up to 1")
    # The tolerance keeps 0.9 · 10 at 9 where the product of binary fractions is a little above it.
    return max(1, math.ceil(require * total - 1e-9 * total))


def missing_allowed(require: Literal["all"] | float, total: int, obtained: int) -> bool:
    """Tell whether a job may go on with ``obtained`` of ``total`` files.

    >>> missing_allowed("all", 10, 9), missing_allowed(0.9, 10, 9), missing_allowed(0.9, 10, 8)
    (False, True, False)

    Raises:
        ValueError: a number is out of range.
    """
    if not 0 <= obtained <= total:
        raise ValueError(f"obtained = {obtained}: allowed is 0…{total}")
    return obtained >= files_required(require, total)


@dataclass(frozen=True)
class InputsObtained:
    """Which input files a job had and which it did without, for provenance and report.

    Args:
        require: the job's rule.
        total: number of files that the job names.
        missing: path of each file that could not be fetched → why.
    """

    require: Literal["all"] | float
    total: int
    missing: Mapping[str, str]

    @property
    def obtained(self) -> int:
        """Number of files that are there."""
        return self.total - len(self.missing)

    @property
    def enough(self) -> bool:
        """Whether the job may go on."""
        return missing_allowed(self.require, self.total, self.obtained)

    def sentence(self) -> str:
        """Return the record as one sentence for logs and the report."""
        needed = files_required(self.require, self.total)
        text = f"{self.obtained} of {self.total} input files were obtained ({needed} required)"
        return f"{text}; missing: {', '.join(sorted(self.missing))}" if self.missing else text

    def as_json(self) -> dict[str, Any]:
        """Return the record as plain data for provenance."""
        return {
            "require": self.require,
            "total": self.total,
            "obtained": self.obtained,
            "enough": self.enough,
            "missing": dict(sorted(self.missing.items())),
        }
