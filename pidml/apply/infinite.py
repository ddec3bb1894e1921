"""Infinite values in track tables: a few tracks get no score, a file with more is refused, as in preparation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml.data.cuts import TOLERATED_BAD_PART
from pidml.errors import BadValues


@dataclass
class Infinite:
    """Counts tracks of a file that have an infinite value.

    Attributes:
        path: the file.
        rows: its tracks.
    """

    path: Path
    rows: int
    _tracks: int = 0
    _places: Counter[str] = field(default_factory=Counter)

    def count(self, place: str, which: NDArray[np.bool_], columns: Mapping[str, NDArray[Any]]) -> None:
        """Add tracks.

        Args:
            place: their table, for texts.
            which: (tracks,), those with an infinite value.
            columns: name → values (tracks,).
        """
        if number := int(np.count_nonzero(which)):
            self._tracks += number
            self._places.update({f"{place} {name}": int(np.isinf(each).sum()) for name, each in columns.items()})

    def require_few(self) -> None:
        """Check, once all tracks were counted, that there are few.

        Raises:
            BadValues: there are more than are tolerated; names the file, and the table and column with most of them.
        """
        if self._tracks > TOLERATED_BAD_PART * self.rows:
            ((place, rows),) = self._places.most_common(1)
            raise BadValues(
                f"{self.path}: {self._tracks} of {self.rows} tracks have infinite values (first of all {place}, "
                f"{rows} rows); {TOLERATED_BAD_PART:.2%} are tolerated",
                "fetch or produce the file again, or leave it out",
            )
