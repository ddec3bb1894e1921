import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pidml.data import shuffle, statistics
from pidml.data.ahead import ahead

VALUES = st.floats(-1e4, 1e4, width=32) | st.just(np.nan)


@given(
    values=hnp.arrays(np.float32, st.tuples(st.integers(0, 60), st.just(3)), elements=VALUES), cut=st.integers(0, 60)
)
def test_moments_of_parts_add_up_to_the_moments_of_the_whole(values, cut):
    both = statistics.Moments.of(values[:cut]) + statistics.Moments.of(values[cut:])
    for index in range(3):
        column = values[:, index].astype(np.float64)
        column = column[~np.isnan(column)]
        assert both.number[index] == len(column)
        if len(column):
            assert both.mean[index] == pytest.approx(column.mean(), rel=1e-9, abs=1e-9)
            assert both.squares[index] == pytest.approx(len(column) * column.var(), rel=1e-9, abs=1e-3)


def test_moments_keep_their_precision_far_from_zero():
    values = np.random.default_rng(1).normal(1e6, 1, (100_000, 1)).astype(np.float32)
    moments = statistics.Moments.of(values)
    exact = values.astype(np.float64)
    assert moments.mean[0] == pytest.approx(exact.mean(), rel=1e-12)
    assert moments.squares[0] / moments.number[0] == pytest.approx(exact.var(), rel=1e-9)


def test_kinds_are_counted_by_pdg_code_and_pattern():
    pdg = np.array([211, 211, -211, 11, 1000010020, 2212], np.int32)
    counts = statistics.named_counts(statistics.count_tracks(pdg, np.array([0, 3, 1, 2, 0, 0], np.uint8)), True)
    assert counts["pion"] == {"complete": 1, "no-tof": 0, "no-trd": 0, "no-trd-no-tof": 1}
    assert counts["antipion"]["no-tof"] == counts["electron"]["no-trd"] == counts["other"]["complete"] == 1
    assert sum(sum(row.values()) for row in counts.values()) == 6


def test_hashes_are_those_of_splitmix64():
    # A generator seeded with s returns mixed(s + k·γ) as its k-th number; published: seed 1234567, first three numbers.
    counter = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1234567)
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert shuffle._mixed(counter).tolist() == published


@given(seed=st.integers(0, 2**31 - 1), first=st.integers(0, 2**40), cut=st.integers(0, 100))
def test_hashes_depend_on_the_row_alone_and_never_repeat(seed, first, cut):
    whole = shuffle.row_hashes(seed, first, 100)
    parts = [shuffle.row_hashes(seed, first, cut), shuffle.row_hashes(seed, first + cut, 100 - cut)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert len(set(whole.tolist())) == 100


def test_sample_and_place_are_independent_and_uniform():
    hashes = shuffle.row_hashes(42, 0, 200_000)
    sample, place = shuffle.sample_of(hashes, (0.16, 0.2)), shuffle.place_of(hashes) / 2**32
    assert np.bincount(sample) / 200_000 == pytest.approx([0.64, 0.16, 0.2], abs=0.005)
    for index in range(3):
        part = np.histogram(place[sample == index], 20, (0, 1))[0]
        expected = np.sum(sample == index) / 20
        assert np.sum((part - expected) ** 2 / expected) < 55  # χ² with 19 degrees of freedom: p = 2e-5
    # Neighbouring seeds give unrelated samples.
    other = shuffle.sample_of(shuffle.row_hashes(43, 0, 200_000), (0.16, 0.2))
    assert abs(np.corrcoef(sample, other)[0, 1]) < 0.012


def test_the_next_item_is_made_while_the_present_one_is_used():
    made = [threading.Event() for _ in range(3)]

    def items():
        for index, event in enumerate(made):
            event.set()
            yield index

    steps = ahead(items())
    assert next(steps) == 0
    assert made[1].wait(10)
    assert not made[2].is_set()
    assert list(steps) == [1, 2]


def test_an_exception_while_reading_ahead_arrives_where_the_item_is_asked_for():
    def items():
        yield 1
        raise KeyError("second")

    steps = ahead(items())
    assert next(steps) == 1
    with pytest.raises(KeyError, match="second"):
        next(steps)


def test_leaving_early_closes_what_is_read():
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    steps = ahead(items())
    assert next(steps) == 0
    steps.close()
    assert closed == [True]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
