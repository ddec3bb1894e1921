"""What a training sample teaches, and what it does not: missing patterns hardly seen, features without information.

A network has no business with what its training never saw: weights that nothing trained would answer at random. So
features that every track lacked, or that were the same for all, are ignored later on, whatever they are; and tracks
with a missing pattern that was hardly seen are answered as if a detector more were missing, where that was seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pidml import tracks
from pidml.data.survey import Survey
from pidml.errors import UselessFeature

#: A missing pattern is taken to be learned from so many tracks, or from this part of the sample if that is fewer.
LEAST_TRACKS, LEAST_SHARE = 100, 0.01


def hardly_seen(patterns: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which missing patterns (last axis) have too few tracks to learn from; one at least has enough.

    >>> hardly_seen(np.array([5_000_000, 5, 0, 200])).tolist()
    [False, True, True, False]
    """
    least = min(_least(int(patterns.sum())), float(patterns.max(initial=0)))
    return np.asarray(patterns < max(least, 1))


def _least(size: int) -> float:
    """Return how many tracks of a sample are enough to learn from."""
    return min(LEAST_TRACKS, LEAST_SHARE * size)


@dataclass(frozen=True)
class Taught:
    """What the training sample of a network taught.

    Attributes:
        features: names, in order.
        patterns: training tracks per missing pattern.
        ignored: feature without information → the value that all had, None if all lacked it.
        lacking: feature → training tracks that lacked it; empty for networks of before that was noted.
    """

    features: tuple[str, ...]
    patterns: tuple[int, ...]
    ignored: Mapping[str, float | None]
    lacking: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def by(cls, survey: Survey) -> Self:
        """Return what a sample teaches."""
        ignored: dict[str, float | None] = {**dict.fromkeys(survey.absent), **survey.constant}
        lacking = dict(zip(survey.names, (survey.tracks - survey.number).tolist(), strict=True))
        patterns = tuple(survey.patterns.tolist())
        return cls(survey.names, patterns, {n: ignored[n] for n in survey.names if n in ignored}, lacking)

    @property
    def tracks(self) -> int:
        """Size of the sample."""
        return sum(self.patterns)

    @property
    def possible(self) -> tuple[int, ...]:
        """Missing patterns that the features can show."""
        flags = sum(int(flag) for flag, names in tracks.DETECTOR_COLUMNS.items() if self._of(names))
        return tuple(pattern for pattern in tracks.PATTERN_NAMES if not pattern & ~flags)

    @property
    def learned(self) -> tuple[int, ...]:
        """Missing patterns that were learned."""
        hardly = hardly_seen(np.array(self.patterns))
        return tuple(pattern for pattern in self.possible if not hardly[pattern])

    @property
    def detectors(self) -> tuple[str, ...]:
        """Detectors that no track of the sample had."""
        return tuple(
            flag.name or ""
            for flag, names in tracks.DETECTOR_COLUMNS.items()
            if (own := self._of(names)) and all(self.ignored.get(name, 0.0) is None for name in own)
        )

    @property
    def hardly_lacking(self) -> tuple[str, ...]:
        """Features that too few training tracks lacked to learn what that means."""
        return tuple(name for name, number in self.lacking.items() if number < max(_least(self.tracks), 1))

    def unexpected(self, feature: str, number: int, of: int) -> str | None:
        """Say what follows if a feature is missing in ``number`` of some tracks; None if the training taught it.

        What detectors that may be missing give is not told here: their patterns tell it.
        """
        own = any(feature in names for names in tracks.DETECTOR_COLUMNS.values())
        if not number or own or feature in self.ignored:
            return None
        if feature not in self.lacking:
            return (
                f"{feature} is missing in {number:,} of {of:,} tracks, and the bundle does not tell whether it was in "
                "any training track: their certainties may mean little"
            )
        if feature not in self.hardly_lacking:
            return None
        had = f"{self.lacking[feature] or 'none'} of the training tracks"
        return f"{feature} is missing in {number:,} of {of:,} tracks, and was in {had}: their certainties mean little"

    def answered_as(self, pattern: int) -> int | None:
        """Return the pattern as which tracks of a pattern are answered: itself if it was learned.

        Otherwise the learned one with fewest further detectors missing (of several, that with most tracks); None if
        there is none.
        """
        fewer = [each for each in self.learned if each & pattern == pattern]
        return min(fewer, key=lambda each: (each.bit_count(), -self.patterns[each]), default=None)

    def nearest(self, pattern: int) -> int:
        """Return the learned pattern that differs from a pattern in fewest detectors, preferably by lacking more."""
        as_one = self.answered_as(pattern)
        return as_one if as_one is not None else min(
            self.learned, key=lambda each: ((each ^ pattern).bit_count(), -self.patterns[each])
        )  # fmt: skip

    def notices(self) -> Iterator[str]:
        """Yield a line for each thing that was not taught: what was found, and what it means."""
        for name in self.detectors:
            own = ", ".join(self._of(tracks.DETECTOR_COLUMNS[tracks.Missing[name]]))
            yield (
                f"none of the {self.tracks:,} training tracks has {name} ({own} missing): networks learn nothing about "
                f"{name} and ignore it in tracks that have it"
            )
        for name, value in self.ignored.items():
            if value is not None:
                yield f"{name} is {value:g} for every training track: networks learn nothing from it and ignore it"
            elif not self._of_absent_detector(name):
                yield f"{name} is missing for every training track: networks learn nothing from it and ignore it"
        for pattern in self.possible:
            if pattern not in self.learned and not self._has_absent_detector(pattern):
                yield self._about(pattern)

    def refuse(self, place: str) -> None:
        """Raise unless every feature carries information, but for those of a detector that is absent as a whole.

        Raises:
            UselessFeature: names features and values.
        """
        wrong = [
            f"{name} is missing for every track" if value is None else f"{name} is {value:g} for every track"
            for name, value in self.ignored.items()
            if not self._of_absent_detector(name)
        ]
        if wrong:
            raise UselessFeature(
                f"{place}: {'; '.join(wrong)} (of {self.tracks:,} in the training sample)",
                "check the input files; or leave these features out of preparation.features; or set "
                "preparation.useless_features: allow, and networks will ignore them",
            )

    def as_json(self) -> dict[str, Any]:
        """Return plain data for JSON: what :meth:`from_json` reads, and for readers what follows from it."""
        name, answered = tracks.PATTERN_NAMES, {p: self.answered_as(p) for p in self.possible if p not in self.learned}
        return {
            "tracks": self.tracks,
            "patterns": {name[pattern]: number for pattern, number in enumerate(self.patterns)},
            "answered_as": {name[p]: None if other is None else name[other] for p, other in answered.items()},
            "ignored": dict(self.ignored),
            "lacking": dict(self.lacking),
            "notices": list(self.notices()),
        }

    @classmethod
    def from_json(cls, features: Sequence[str], content: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_json` described."""
        patterns = tuple(int(content["patterns"][name]) for name in tracks.PATTERN_NAMES.values())
        return cls(tuple(features), patterns, dict(content["ignored"]), dict(content.get("lacking", {})))

    def _about(self, pattern: int) -> str:
        name, other = tracks.PATTERN_NAMES, self.answered_as(pattern)
        number = self.patterns[pattern]
        found = f"{'none' if not number else f'only {number:,}'} of the {self.tracks:,} training tracks"
        what = f"{found} {'is' if number < 2 else 'are'} {name[pattern]}"
        if other is None:
            return f"{what}: certainties of such tracks will be extrapolations that mean little"
        return f"{what}: such tracks will be answered as {name[other]}"

    def _of(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self.features]

    def _of_absent_detector(self, feature: str) -> bool:
        return any(feature in tracks.DETECTOR_COLUMNS[tracks.Missing[name]] for name in self.detectors)

    def _has_absent_detector(self, pattern: int) -> bool:
        return any(not pattern & tracks.Missing[name] for name in self.detectors)
