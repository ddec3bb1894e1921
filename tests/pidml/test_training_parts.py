import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prepared_data import write_prepared

from pidml import tracks
from pidml.errors import NoTracks, SpeciesAbsent, TrainingError
from pidml.evaluation.thresholds import best_f1_threshold
from pidml.models import Inputs, build
from pidml.spec.model_sections import Model, Training
from pidml.species import TARGET_NAMES
from pidml.training.batches import Source
from pidml.training.labels import check_labels, class_indices
from pidml.training.objective import certainty, loss
from pidml.training.plan import Plan, Share
from pidml.training.readahead import read_ahead
from pidml.training.record import Epoch, Record
from pidml.training.room import Room
from pidml.training.schedules import learning_rate_factor

torch.set_num_threads(1)


def f1_at(truth, certainty, threshold):
    accepted = certainty >= threshold
    return 2 * (accepted & truth).sum() / (accepted.sum() + truth.sum())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=1, max_size=60).filter(
        lambda v: any(t for t, _ in v)
    )
)
def test_threshold_is_the_best_of_all(values):
    truth = np.array([t for t, _ in values])
    scores = np.array([s / 12 for _, s in values], np.float32)  # many ties
    threshold, best = best_f1_threshold(truth, scores)
    assert f1_at(truth, scores, threshold) == pytest.approx(best)
    every = [f1_at(truth, scores, cut) for cut in np.append(np.unique(scores), 0.5)]
    assert best == pytest.approx(max(every))


def test_threshold_is_safe_from_rounding():
    truth, scores = np.array([True, True, False]), np.array([0.9, 0.8, 0.1], np.float32)
    assert best_f1_threshold(truth, scores) == (pytest.approx(0.45), 1.0)


def test_losses_are_the_textbook_ones():
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(50, 6, generator=generator)
    classes = torch.randint(0, 7, (50,), generator=generator)
    targets = torch.nn.functional.one_hot(classes, 7)[:, :6].float()
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(loss("binary", logits, classes), each.sum(dim=1).mean())
    seven = 3 * torch.randn(50, 7, generator=generator)
    picked = torch.log_softmax(seven, 1)[torch.arange(50), classes]
    torch.testing.assert_close(loss("softmax", seven, classes), -picked.mean())
    for objective, output in (("binary", logits), ("softmax", seven)):
        result = certainty(objective, output)
        assert result.shape == (50, 6)
        assert ((result >= 0) & (result <= 1)).all()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0]),
        ("exponential", [1.0, 0.5**2, 0.5**3]),
        ("cosine", [1.0, 0.5, 0.0]),
        ("polynomial", [1.0, 0.25, 0.0]),
    ],
)
def test_schedules_at_beginning_middle_and_end(schedule, expected):
    factor = learning_rate_factor(Training(schedule=schedule, gamma=0.5, max_epochs=4), steps_per_epoch=10)
    assert [factor(step) for step in (0, 20, 39 if schedule == "exponential" else 40)] == pytest.approx(expected)


def test_one_cycle_rises_to_its_peak_and_falls():
    factor = learning_rate_factor(Training(schedule="one-cycle", max_epochs=10), steps_per_epoch=100)
    values = [factor(step) for step in range(1001)]
    peak = int(np.argmax(values))
    assert peak == 100
    assert values[peak] == pytest.approx(1.0)
    assert all(a < b for a, b in itertools.pairwise(values[: peak + 1]))
    assert all(a > b for a, b in itertools.pairwise(values[peak:]))
    assert values[-1] < 1e-3


def row(epoch, validation):
    return Epoch(epoch, 1.0, validation, 0.1, 1.0, 1.0)


def test_early_stopping_needs_relative_improvement():
    record = Record("x")
    losses = [1.0, 0.9, 0.8999, 0.8998, 0.5]
    flags = [record.add(row(n, value), patience=2, min_improvement=0.01) for n, value in enumerate(losses[:4])]
    assert flags == [True, True, True, True]  # best is best, however little better
    assert record.finished  # but two epochs in a row improved by less than 1 %
    assert record.best_epoch == 3


def test_record_survives_being_saved(tmp_path):
    record = Record("x")
    record.add(row(0, 0.5), 3, 0.0)
    record.best_state = {"weight": torch.ones(2)}
    torch.save(record.state(), tmp_path / "state.pt")
    again = Record.of(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.rows == record.rows
    assert again.csv() == record.csv()
    assert math.isclose(again.reference, 0.5)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (70_000, 3000, 10))


def source(prepared, resident):
    network = build(Model(architecture="masked-mlp"), Inputs.of(prepared.scaling), 6)
    return Source(prepared, TARGET_NAMES, network.encode, [Room(torch.device("cpu"), resident)], 65_536)


def drawn(prepared, resident, epoch, **plan):
    batches = source(prepared, resident).batches("train", Plan(1000, 5, lambda: epoch, **plan))
    items = list(batches)
    assert len(items) == len(batches)
    return torch.cat([x for x, _ in items]), torch.cat([y for _, y in items])


def fingerprints(encoded):
    return np.sort(encoded.double().sum(dim=1).numpy())


@pytest.mark.parametrize("resident", [2**40, 0], ids=["resident", "streamed"])
def test_an_epoch_is_every_track_once_in_a_new_order(prepared, resident):
    everything = torch.cat([x for x, _ in source(prepared, resident).batches("train", None)])
    assert len(everything) == 70_000
    first, labels = drawn(prepared, resident, 0)
    again, _ = drawn(prepared, resident, 0)
    other, _ = drawn(prepared, resident, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, everything)
    np.testing.assert_array_equal(fingerprints(first), fingerprints(everything))
    expected = class_indices(np.asarray(prepared.split("train").pdg), TARGET_NAMES)
    assert np.bincount(labels.numpy()).tolist() == np.bincount(expected).tolist()


@pytest.mark.parametrize("undersample", [False, True])
@pytest.mark.parametrize("rows", [1000, 40_000])
def test_what_is_held_in_memory_and_what_is_streamed_are_the_same_batches(prepared, undersample, rows):
    plan = Plan(rows, 5, lambda: 1, undersample, Share(1, 2, 3))
    held, streamed = (list(source(prepared, resident).batches("train", plan)) for resident in (2**40, 0))
    assert len(held) == len(streamed)
    for ours, theirs in zip(held, streamed, strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("resident", [2**40, 0], ids=["resident", "streamed"])
def test_undersampling_equalises_patterns_and_draws_afresh(prepared, resident):
    patterns = tracks.feature_pattern(np.asarray(prepared.split("train").features), prepared.features)
    rarest = np.bincount(patterns)[np.unique(patterns)].min()
    encoded, _ = drawn(prepared, resident, 0, undersample=True)
    width = len(prepared.features)
    missing = encoded[:, -width:].numpy().astype(bool)
    names = list(prepared.features)
    seen = missing[:, names.index("fBeta")] + 2 * missing[:, names.index("fTRDPattern")]
    counts = np.bincount(seen, minlength=4)
    whole = len(np.unique(patterns)) * rarest // 1000 * 1000
    assert counts.sum() == whole
    assert np.allclose(counts, whole / 4, rtol=0.15)  # the last incomplete batch is left out
    other, _ = drawn(prepared, resident, 1, undersample=True)
    common = np.isin(fingerprints(other), fingerprints(encoded)).mean()
    assert common < 0.6  # rarest pattern is there again, common ones are not


@pytest.mark.parametrize("resident", [2**40, 0], ids=["resident", "streamed"])
def test_processes_and_parts_together_are_the_same_batches(prepared, resident):
    whole, _ = drawn(prepared, resident, 0)
    parts = [drawn(prepared, resident, 0, share=Share(rank, 2, 3))[0] for rank in (0, 1)]
    assert len(parts[0]) + len(parts[1]) == len(whole)
    np.testing.assert_array_equal(fingerprints(torch.cat(parts)), fingerprints(whole))
    first = torch.cat([part[:n] for part, n in zip(parts, (501, 499), strict=True)])
    np.testing.assert_array_equal(fingerprints(first), fingerprints(whole[:1000]))


def test_a_batch_that_cannot_be_divided_is_named(prepared):
    plan = Plan(3, 5, lambda: 0, share=Share(0, 2, 2))
    with pytest.raises(TrainingError, match="a batch of 3 tracks cannot be divided into 4 parts"):
        len(source(prepared, 2**40).batches("train", plan))


def test_read_ahead_keeps_order_and_passes_errors_on():
    def items():
        yield 1
        yield 2
        raise ValueError("broken")

    made = read_ahead(items())
    assert [next(made), next(made)] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(made)
    assert list(read_ahead(iter(range(50)))) == list(range(50))


def test_what_cannot_be_trained_is_named(tmp_path):
    with pytest.raises(TrainingError, match="no labels"):
        check_labels(write_prepared(tmp_path / "data", (50, 20, 5), simulation=False), TARGET_NAMES)
    with pytest.raises(SpeciesAbsent, match="no antikaon among the 300 tracks of the train sample"):
        check_labels(write_prepared(tmp_path / "some", (300, 300, 5), keep_pdg=(211, 321, 2212, -211)), TARGET_NAMES)
    with pytest.raises(NoTracks, match="the validation sample is empty"):
        check_labels(write_prepared(tmp_path / "none", (3000, 0, 5)), ["pion"])
    only = write_prepared(tmp_path / "only", (300, 300, 5))
    for name in ("train", "validation"):
        np.save(only.path / name / "pdg.npy", np.full(300, 211, np.int32))
    with pytest.raises(SpeciesAbsent, match="all 300 tracks of the train sample are pion"):
        check_labels(only, ["pion"])
