"""Which tracks are used for training, and how many each cut removes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pidml.data.track_tables import TrackTable
from pidml.errors import BadValues
from pidml.spec.data_sections import Cuts

#: Part of a file's tracks that may hold impossible values; they are dropped and counted. Above it the file is refused.
TOLERATED_BAD_PART = 1e-4
#: Relative difference allowed between fP and √(fPt² + fPz²).
_MOMENTUM_TOLERANCE = 0.01
_MOMENTA = ("fP", "fPt", "fPx", "fPy", "fPz")

Mask = NDArray[np.bool_]


@dataclass
class CutFlow:
    """Counts what each cut removes, in the order of the cuts, and watches for values that cannot be.

    Attributes:
        cuts: limits.
        features: columns that must not be infinite; others (nσ, for example) may be.
        removed: cut → tracks that it removed of those that the cuts before it had left.
    """

    cuts: Cuts
    features: Sequence[str]
    removed: Counter[str] = field(
        default_factory=lambda: Counter(dict.fromkeys(("bad_values", "tpc_signal", "momentum", "eta", "secondary"), 0))
    )
    _read: Counter[str] = field(default_factory=Counter)
    _bad: Counter[str] = field(default_factory=Counter)
    _bad_columns: dict[str, Counter[str]] = field(default_factory=dict)

    def select(self, table: TrackTable, columns: Mapping[str, NDArray[np.float32]]) -> Mask:
        """Return which tracks pass all cuts, shape (tracks,); a track on an edge does not.

        Args:
            table: where the tracks come from, for error texts.
            columns: must hold fP, fPt, fPz, fEta, fTPCSignal, and fIsPhysicalPrimary if primaries are asked for.
        """
        cuts, signal, momentum = self.cuts, columns["fTPCSignal"], columns["fP"]
        left = self._possible(table, columns)
        self.removed["bad_values"] += len(left) - int(np.count_nonzero(left))
        steps = [
            ("tpc_signal", (signal > cuts.tpc_signal_min) & (signal < cuts.tpc_signal_max)),
            ("momentum", (momentum > cuts.momentum_min) & (momentum < cuts.momentum_max)),
            ("eta", np.abs(columns["fEta"]) < cuts.abs_eta_max),
        ]
        if cuts.primaries_only:
            steps.append(("secondary", columns["fIsPhysicalPrimary"] > 0))
        for name, passing in steps:
            before = int(np.count_nonzero(left))
            left &= passing
            self.removed[name] += before - int(np.count_nonzero(left))
        return left

    def _possible(self, table: TrackTable, columns: Mapping[str, NDArray[np.float32]]) -> Mask:
        """Return which tracks have values that can be: momenta finite and consistent, nothing infinite."""
        momentum = columns["fP"]
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.hypot(columns["fPt"], columns["fPz"])
            bad = {"fP": ~(np.abs(momentum - total) <= _MOMENTUM_TOLERANCE * momentum)}
        for name in dict.fromkeys((*_MOMENTA, *self.features)):
            if name not in columns:
                continue
            impossible = ~np.isfinite(columns[name]) if name in _MOMENTA else np.isinf(columns[name])
            bad[name] = bad[name] | impossible if name in bad else impossible
        any_bad = np.logical_or.reduce(list(bad.values()))
        file = str(table.path)
        self._read[file] += len(momentum)
        number = int(np.count_nonzero(any_bad))
        if number:
            self._bad[file] += number
            places = self._bad_columns.setdefault(file, Counter())
            for name, which in bad.items():
                places[f"{table.place} {name}"] += int(np.count_nonzero(which))
        return np.asarray(~any_bad)

    def refuse_bad_files(self) -> None:
        """Check that no file holds too many impossible values.

        Raises:
            BadValues: naming the file, and the table and column with most of them.
        """
        for file, number in self._bad.items():
            if number > TOLERATED_BAD_PART * self._read[file]:
                place, _ = self._bad_columns[file].most_common(1)[0]
                raise BadValues(
                    f"{file}: {number} of {self._read[file]} tracks have infinite or inconsistent values, or momenta"
                    f" that are not numbers (first of all {place}); {TOLERATED_BAD_PART:.2%} are tolerated",
                    "fetch or produce the file again, or leave it out of dataset.files",
                )
