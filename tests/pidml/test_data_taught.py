"""What a sample teaches: surveys add up, patterns that were hardly seen have a stand-in, and a line says each thing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from track_files import make_columns, write_tables

from pidml import tracks
from pidml.data.prepare import prepare
from pidml.data.survey import Survey
from pidml.data.taught import Taught, hardly_seen
from pidml.errors import UselessFeature
from pidml.spec.data_sections import Preparation

NAMES = ("fTPCSignal", "fTRDPattern", "fTOFSignal", "fBeta")
ALLOWED = Preparation(useless_features="allow")


def taught(*patterns, features=tracks.FEATURES, **ignored):
    return Taught(tuple(features), patterns, ignored)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 300), st.just(4)), elements=st.sampled_from([1.0, 2.0, np.nan])),
    st.integers(0, 300),
)
def test_surveys_of_parts_add_up_and_survive_json(values, cut):
    both = Survey.of(values[:cut], NAMES) + Survey.of(values[cut:], NAMES)
    again = Survey.from_json(json.loads(json.dumps(both.as_json(), allow_nan=False)))
    for found in (both, again):
        assert found.patterns.tolist() == np.bincount(tracks.feature_pattern(values, NAMES), minlength=4).tolist()
        assert found.number.tolist() == np.count_nonzero(~np.isnan(values), axis=0).tolist()
        for index, name in enumerate(NAMES):
            there = values[~np.isnan(values[:, index]), index]
            assert (name in found.absent) == (len(there) == 0)
            assert (name in found.constant) == (len(there) >= 100 and len(set(there)) == 1)


def test_a_value_is_constant_within_the_precision_of_float32_and_of_enough_tracks():
    values = np.full((1000, 4), 0.3, np.float32)
    values[::2, 0] = np.nextafter(np.float32(0.3), np.float32(1))
    values[5, 1] = 0.31
    values[:, 2] = 0.0
    values[99:, 3] = np.nan
    assert Survey.of(values, NAMES).constant == pytest.approx({"fTPCSignal": 0.3, "fTOFSignal": 0.0})


def test_a_pattern_is_hardly_seen_below_100_tracks_or_one_in_a_hundred_of_a_small_sample():
    assert hardly_seen(np.array([10**7, 5, 99, 100])).tolist() == [False, True, True, False]
    assert hardly_seen(np.array([0, 3, 300, 297])).tolist() == [True, True, False, False]
    assert hardly_seen(np.array([[400, 4, 0, 3]])).tolist() == [[False, True, True, True]]
    assert hardly_seen(np.array([0, 1, 0, 0])).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("patterns", "stand_ins", "nearest"),
    [
        ((900, 900, 900, 900), [0, 1, 2, 3], [0, 1, 2, 3]),
        ((5, 900, 800, 900), [1, 1, 2, 3], [1, 1, 2, 3]),  # of two, the one with more tracks
        ((0, 0, 500, 900), [2, 3, 2, 3], [2, 3, 2, 3]),  # never TRD
        ((0, 0, 0, 900), [3, 3, 3, 3], [3, 3, 3, 3]),
        ((900, 0, 0, 5), [0, None, None, None], [0, 0, 0, 0]),
        ((900, 0, 0, 900), [0, 3, 3, 3], [0, 3, 3, 3]),
        ((0, 900, 0, 0), [1, 1, None, None], [1, 1, 1, 1]),
    ],
)
def test_tracks_are_answered_with_fewer_detectors_never_with_more(patterns, stand_ins, nearest):
    given = taught(*patterns)
    assert [given.answered_as(each) for each in range(4)] == stand_ins
    assert [given.nearest(each) for each in range(4)] == nearest
    assert Taught.from_json(tracks.FEATURES, json.loads(json.dumps(given.as_json()))) == given


def test_only_patterns_that_the_features_can_show_count():
    assert taught(900, 0, 0, 0, features=("fTPCSignal", "fP")).possible == (0,)
    assert taught(900, 0, 90, 0, features=("fTPCSignal", "fTRDPattern")).possible == (0, 2)
    assert not list(taught(900, 0, 0, 0, features=("fTPCSignal", "fP")).notices())


def test_each_thing_is_said_once():
    assert not list(taught(900, 900, 900, 900).notices())
    (line,) = taught(0, 0, 500, 900, fTRDPattern=None).notices()
    assert line.startswith("none of the 1,400 training tracks has TRD (fTRDPattern missing)")
    value, pattern = taught(5, 900, 900, 900, fDcaZ=0.25).notices()
    assert "fDcaZ is 0.25 for every training track" in value
    assert "only 5 of the 2,705 training tracks are complete" in pattern
    assert "will be answered as no-" in pattern
    *_, last = taught(900, 0, 0, 0).notices()
    assert "none of the 900 training tracks is no-trd-no-tof" in last
    assert "mean little" in last


def table(path, **changes):
    columns = make_columns(2000)
    for name, value in changes.items():
        columns[name][:] = value
    return write_tables(path / "in.root", {"DF_1": columns})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"fDcaXY": np.nan}, "fDcaXY is missing for every track"),
        ({"fBeta": np.nan}, "fBeta is missing for every track"),  # TOF is there
        ({"fSign": 1}, "fSign is 1 for every track"),  # no standardised feature
        ({"fAlpha": 0.0}, "fAlpha is 0 for every track"),
        ({"fTPCNClsShared": 3, "fX": -2.5}, "fX is -2.5 for every track; fTPCNClsShared is 3 for every track"),
    ],
)
def test_a_feature_without_information_is_refused_by_name_and_can_be_allowed(tmp_path, caplog, changes, found):
    path = table(tmp_path, **changes)
    with pytest.raises(UselessFeature, match=found) as error:
        prepare([path], tmp_path / "refused", Preparation(), simulation=True, seed=1)
    assert str(path) in str(error.value)
    assert "preparation.useless_features: allow" in error.value.hint
    assert not (tmp_path / "refused" / "meta.json").exists()
    dataset = prepare([path], tmp_path / "allowed", ALLOWED, simulation=True, seed=1)
    for name in changes:
        (line,) = [line for line in dataset.meta["warnings"] if line.startswith(name)]
        assert "ignore it" in line
        assert caplog.text.count(line) == 1
    assert Taught.by(dataset.survey("train")).ignored.keys() == changes.keys()


@pytest.mark.parametrize("columns", [("fTRDSignal", "fTRDPattern"), ("fTOFSignal", "fBeta")], ids=["TRD", "TOF"])
def test_a_detector_that_was_off_is_no_error_but_said(tmp_path, caplog, columns):
    path = table(tmp_path, **{name: 0 if name == "fTRDPattern" else np.nan for name in columns})
    dataset = prepare([path], tmp_path / "out", Preparation(), simulation=True, seed=1)
    (line,) = dataset.meta["warnings"]
    assert line.startswith(f"none of the {len(dataset.split('train')):,} training tracks has {columns[0][1:4]}")
    assert caplog.messages.count(line) == 1


def test_what_preparation_found_is_what_the_sample_holds(tmp_path):
    dataset = prepare([table(tmp_path)], tmp_path / "out", Preparation(), simulation=True, seed=1)
    assert dataset.meta["warnings"] == []
    for name in ("train", "validation", "test"):
        read = Survey.of(np.asarray(dataset.split(name).features), dataset.features)
        for field in ("patterns", "number", "low", "high"):
            np.testing.assert_array_equal(getattr(dataset.survey(name), field), getattr(read, field))
        del dataset.meta["surveys"][name]
        assert dataset.survey(name).as_json() == read.as_json()


def test_a_feature_missing_otherwise_than_in_training_is_told():
    told = Taught(("fDcaXY", "fDcaZ", "fX", "fBeta", "fY"), (900, 0, 0, 0), {"fY": None}, dict.fromkeys(
        ("fDcaXY", "fBeta"), 0) | {"fDcaZ": 8, "fX": 9, "fY": 900})  # fmt: skip
    assert Taught.from_json(told.features, json.loads(json.dumps(told.as_json()))) == told
    assert told.hardly_lacking == ("fDcaXY", "fBeta", "fDcaZ")
    assert [told.unexpected(name, 5, 10) is None for name in told.features] == [False, False, True, True, True]
    assert "was in 8 of the training tracks" in told.unexpected("fDcaZ", 5, 10)
    assert told.unexpected("fDcaXY", 0, 10) is None
    before = Taught(told.features, told.patterns, {})
    assert before.hardly_lacking == ()
    assert "the bundle does not tell" in before.unexpected("fDcaXY", 5, 10)
    assert before.unexpected("fBeta", 5, 10) is None
