"""A subsample of a job, shared between groups of files."""

from itertools import pairwise

import pytest

from pidml.producer.shares import EVERYTHING, Share, portion, share_of_group
from pidml.spec.data_sections import InputFile, Producer


def files(*sizes: int | None) -> list[InputFile]:
    return [InputFile(path=f"/alice/sim/{number}.root", size=size) for number, size in enumerate(sizes)]


def shares(producer: Producer, given: list[InputFile]) -> list[Share]:
    return [share_of_group(producer, given, group) for group in range(-(-len(given) // producer.files_per_group))]


def test_groups_give_in_proportion_to_their_files():
    producer = Producer(subsample_tracks=1000, subsample_events=7, files_per_group=10)
    found = shares(producer, files(*[None] * 25))
    assert [share.tracks for share in found] == [400, 400, 200]
    assert [share.events for share in found] == [2, 3, 2]


def test_sizes_of_the_catalogue_count_if_all_are_known():
    producer = Producer(subsample_tracks=1000, files_per_group=2)
    assert [share.tracks for share in shares(producer, files(3, 4, 2, 1))] == [700, 300]
    assert [share.tracks for share in shares(producer, files(3, 4, 2, None))] == [500, 500]


def test_nothing_asked_for_draws_nothing():
    assert shares(Producer(files_per_group=1), files(None, 5)) == [EVERYTHING] * 2


def test_fewer_tracks_than_groups_leave_groups_without():
    producer = Producer(subsample_tracks=3, files_per_group=1)
    assert sorted(share.tracks for share in shares(producer, files(*[None] * 5))) == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("wanted", [1, 999, 10**9 + 7])
def test_portions_add_up_and_are_within_one_of_the_proportion(wanted):
    weights = [1, 10**12, 7, 7, 3 * 10**11, 1]
    borders = [sum(weights[:number]) for number in range(len(weights) + 1)]
    portions = [portion(wanted, *pair, borders[-1]) for pair in pairwise(borders)]
    assert sum(portions) == wanted
    for each, weight in zip(portions, weights, strict=True):
        assert abs(each * borders[-1] - wanted * weight) <= borders[-1]
