"""What each group of files gives to a subsample of the whole job, known before any file is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pidml.spec.data_sections import InputFile, Producer


@dataclass(frozen=True)
class Share:
    """Numbers of collisions and of tracks that one group gives; ``None`` gives everything."""

    events: int | None = None
    tracks: int | None = None


EVERYTHING = Share()


def share_of_group(producer: Producer, files: Sequence[InputFile], group: int) -> Share:
    """Return what a group of ``producer.files_per_group`` files gives: in proportion to the data that it holds.

    Data are counted by the sizes that the catalogue states, or by files if it does not state all of them. The shares of
    all groups add up to exactly what is asked for; a group that turns out to hold less gives what it has.

    Args:
        producer: the job's settings.
        files: all files of the job.
        group: number of the group, from 0.
    """
    sizes = [file.size or 0 for file in files]
    weights = sizes if all(sizes) else [1] * len(files)
    start = group * producer.files_per_group
    before, total = sum(weights[:start]), sum(weights)
    behind = before + sum(weights[start : start + producer.files_per_group])
    wanted = (producer.subsample_events, producer.subsample_tracks)
    return Share(*(portion(each, before, behind, total) if each else None for each in wanted))


def portion(wanted: int, start: int, stop: int, total: int) -> int:
    """Return what the part from ``start`` to ``stop`` of ``total`` gives to ``wanted``.

    The portions of parts that follow one another add up to ``wanted``, and each is within 1 of the exact proportion.

    >>> portion(10, 0, 3, 7), portion(10, 3, 6, 7), portion(10, 6, 7, 7)
    (4, 4, 2)
    """
    return wanted * stop // total - wanted * start // total
