import io
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from pidml import tracks
from pidml.models import Inputs
from pidml.models.tree_arrays import ALL_OUTPUTS, Forest, joined, rounded_down, tree
from pidml.models.tree_sum import TreeSum
from pidml.models.trees import Trees, column_count, columns
from pidml.spec.model_sections import Model
from pidml.training.boosting import xgboost_forest
from pidml.training.random_forest import sklearn_forest

torch.set_num_threads(1)
COLUMNS = 4
SPECIAL = (0.0, -0.0, np.inf, -np.inf, 1e-45, np.float32(0.1))


def random_tree(rng, target=ALL_OUTPUTS, width=3, splits=8):
    """Grow a tree at random, as libraries keep it: children anywhere; returns its arrays."""
    left, right = [-1], [-1]
    for _ in range(splits):
        node = int(rng.choice(np.flatnonzero(np.array(left) < 0)))
        left[node], right[node] = len(left), len(left) + 1
        left += [-1, -1]
        right += [-1, -1]
    size, shuffled = len(left), np.append(0, 1 + rng.permutation(len(left) - 1))
    place = np.empty(size, np.int64)
    place[shuffled] = np.arange(size)
    children = [np.array([place[c] if c >= 0 else -1 for c in np.array(side)[shuffled]]) for side in (left, right)]
    threshold = rng.normal(size=size).astype(np.float32)
    special = rng.random(size) < 0.3
    threshold[special] = rng.choice(SPECIAL, special.sum())
    return {
        "feature": rng.integers(0, COLUMNS, size),
        "threshold": threshold,
        "left": children[0],
        "right": children[1],
        "missing_left": rng.random(size) < 0.5,
        "values": rng.normal(size=(size, 1 if target >= 0 else width)).astype(np.float32),
        "target": target,
    }


def followed(own, row):
    """Follow one track through a tree, one comparison at a time."""
    node = 0
    while own["left"][node] >= 0:
        value = row[own["feature"][node]]
        goes_left = own["missing_left"][node] if np.isnan(value) else value <= own["threshold"][node]
        node = own["left" if goes_left else "right"][node]
    return own["values"][node]


def some_rows(rng, size):
    rows = rng.normal(size=(size, COLUMNS)).astype(np.float32)
    exact = rng.random(rows.shape) < 0.2
    rows[exact] = rng.choice([each for each in SPECIAL if np.isfinite(each)], exact.sum())
    rows[rng.random(rows.shape) < 0.3] = np.nan
    return rows


class Alone(torch.nn.Module):
    def __init__(self, evaluated):
        super().__init__()
        self.evaluated = evaluated

    def forward(self, rows):
        return self.evaluated(rows)


def in_onnx(evaluated, rows, operators=1):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            Alone(evaluated), (torch.from_numpy(rows[:2]),), stream, dynamo=False, opset_version=17,
            input_names=["rows"], dynamic_axes={"rows": {0: "batch"}}, custom_opsets={"ai.onnx.ml": 1},
        )  # fmt: skip
    model = onnx.load_from_string(stream.getvalue())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("TreeEnsembleRegressor") == operators
    session = ort.InferenceSession(stream.getvalue(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"rows": row[None]})[0] for row in rows])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_tensors_and_onnx_follow_every_track_to_its_leaves(seed, everywhere):
    rng = np.random.default_rng(seed)
    grown = [random_tree(rng, ALL_OUTPUTS if everywhere else index % 3, splits=index) for index in range(7)]
    rows = some_rows(rng, 30)
    expected = np.zeros((len(rows), 3))
    for own in grown:
        for index, row in enumerate(rows):
            value = followed(own, row)
            expected[index] += value if everywhere else np.eye(3)[own["target"]] * value
    forest = joined(tree(**own) for own in grown)
    evaluated = TreeSum(forest, COLUMNS, 3)
    np.testing.assert_allclose(evaluated.evaluate(torch.from_numpy(rows)), expected, atol=1e-6)
    np.testing.assert_allclose(in_onnx(evaluated, rows), expected, atol=1e-5)
    alone = TreeSum(forest.of_outputs([2]), COLUMNS, 1)
    np.testing.assert_allclose(alone.evaluate(torch.from_numpy(rows))[:, 0], expected[:, 2], atol=1e-6)
    parts = [TreeSum(forest.trees(*each), COLUMNS, 3) for each in ((0, 2), (2, 3), (3, 9))]
    together = sum(part.evaluate(torch.from_numpy(rows)) for part in parts)
    np.testing.assert_allclose(together, expected, atol=1e-6)


@pytest.mark.parametrize("everywhere", [True, False])
def test_trees_in_groups_add_up_to_the_same(everywhere):
    rng = np.random.default_rng(5)
    grown = [random_tree(rng, ALL_OUTPUTS if everywhere else index % 3, splits=index) for index in range(7)]
    evaluated, rows = TreeSum(joined(tree(**own) for own in grown), COLUMNS, 3), some_rows(rng, 60)
    expected = in_onnx(evaluated, rows)
    for nodes, operators in ((1, 7), (20, 2), (1000, 1)):  # trees of 1, 3, 5, 7, 9, 11 and 13 nodes
        evaluated.group(nodes)
        np.testing.assert_allclose(in_onnx(evaluated, rows, operators), expected, atol=1e-6)
        np.testing.assert_allclose(evaluated(torch.from_numpy(rows)), expected, atol=1e-6)


def test_many_tracks_are_looked_at_in_parts(monkeypatch):
    rng = np.random.default_rng(1)
    forest = joined(tree(**random_tree(rng)) for _ in range(9))
    rows = torch.from_numpy(some_rows(rng, 200))
    at_once = TreeSum(forest, COLUMNS, 3).evaluate(rows)
    monkeypatch.setattr("pidml.models.tree_sum._TOGETHER", 450)
    torch.testing.assert_close(TreeSum(forest, COLUMNS, 3).evaluate(rows), at_once)


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e30, 1e30), st.integers(-3, 3))
def test_a_rounded_threshold_decides_alike_for_every_float32(threshold, steps):
    value = np.float32(threshold)
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.sign(steps) * np.inf))
    rounded = rounded_down(np.array([threshold]))[0]
    assert (value <= rounded) == (float(value) <= threshold)


def some_labels(size, seed, missing=0.25):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, COLUMNS)).astype(np.float32)
    classes = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int) + (rows[:, 3] > 1)
    rows[:, :2][rng.random((size, 2)) < missing] = np.nan  # columns 2 and 3 are complete in training
    classes = np.where(np.isnan(rows[:, 0]) & (rng.random(size) < 0.8), 3, classes)
    return rows, classes


def test_trees_of_xgboost_are_reproduced():
    xgboost = pytest.importorskip("xgboost")
    rows, classes = some_labels(4000, 1)
    settings_ = {"objective": "multi:softprob", "num_class": 4, "max_depth": 5, "eta": 0.3, "nthread": 1}
    table = xgboost.DMatrix(rows, classes, base_margin=np.zeros((4000, 4), np.float32))
    booster = xgboost.train(settings_, table, 12)
    others, _ = some_labels(3000, 2)
    others[np.random.default_rng(3).random(others.shape) < 0.3] = np.nan
    others[:1000] = rows[:1000]  # values that lie on thresholds
    theirs = booster.predict(xgboost.DMatrix(others, base_margin=np.zeros((3000, 4), np.float32)), output_margin=True)
    evaluated = TreeSum(xgboost_forest(booster, 4), COLUMNS, 4)
    np.testing.assert_allclose(evaluated.evaluate(torch.from_numpy(others)), theirs, atol=2e-6)
    np.testing.assert_allclose(in_onnx(evaluated, others[:500]), theirs[:500], atol=2e-6)


def test_trees_of_scikit_learn_are_reproduced():
    rows, classes = some_labels(4000, 4)
    forest = RandomForestClassifier(15, min_samples_leaf=3, random_state=1).fit(rows, classes)
    others, _ = some_labels(3000, 5)
    others[np.random.default_rng(6).random(others.shape) < 0.3] = np.nan
    others[:1000] = rows[:1000]
    theirs = forest.predict_proba(others)
    arrays = sklearn_forest(forest, 4)
    evaluated = TreeSum(arrays, COLUMNS, 4)
    np.testing.assert_allclose(evaluated.evaluate(torch.from_numpy(others)) / 15, theirs, atol=1e-6)
    np.testing.assert_allclose(in_onnx(evaluated, others[:500]) / 15, theirs[:500], atol=1e-6)


def test_a_class_that_no_track_has_gets_nothing():
    rows, classes = some_labels(500, 7)
    rows, classes = rows[classes != 1], classes[classes != 1]
    forest = RandomForestClassifier(3, random_state=1).fit(rows, classes)
    evaluated = TreeSum(sklearn_forest(forest, 5), COLUMNS, 5)
    sums = evaluated.evaluate(torch.from_numpy(rows)) / 3
    assert (sums[:, [1, 4]] == 0).all()
    np.testing.assert_allclose(sums.sum(dim=1), 1, atol=1e-6)


def test_added_columns_are_missing_with_what_they_are_made_of():
    inputs = Inputs(tracks.FEATURES, (0.0,) * 16, tuple(2.0 if name == "fBeta" else 1.0 for name in tracks.FEATURES))
    rows = torch.rand(5, 16)
    beta, momentum = inputs.index("fBeta"), inputs.index("fP")
    rows[1, beta], rows[2, beta] = torch.nan, 0.0
    made = columns(rows, inputs)
    assert made.shape == (5, column_count(inputs)) == (5, 18)
    torch.testing.assert_close(made[:, 16], rows[:, inputs.index("fPx")] ** 2 + rows[:, inputs.index("fPy")] ** 2)
    assert torch.isnan(made[1, 17])
    assert torch.isfinite(made[2, 17])
    p, b = rows[0, momentum].double(), 2 * rows[0, beta].double()
    assert float(made[0, 17]) == pytest.approx(float(p**2 * (1 / b**2 - 1)), rel=1e-3, abs=1e-4)
    assert column_count(Inputs(("fP", "fTPCSignal"), (0.0, 0.0), (1.0, 1.0))) == 2


@pytest.mark.parametrize("link", ["identity", "log", "logit"])
def test_a_model_is_restored_from_its_state(link):
    rng = np.random.default_rng(3)
    inputs = Inputs(("fTPCSignal", "fX", "fY", "fZ"), (0.0,) * 4, (1.0,) * 4)
    model = Trees(Model(), inputs, 3)
    forest = joined(tree(**random_tree(rng)) for _ in range(4))
    positive = Forest(**{**vars(forest), "values": np.abs(forest.values) / 10})
    model.plant(positive, link)
    model.rescale_output(torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 1.0, -1.0]))
    again = Trees(Model(), inputs, 3)
    again.load_state_dict(model.state_dict())
    rows = torch.from_numpy(some_rows(rng, 50))
    expected = model(rows)
    assert torch.isfinite(expected).all()
    assert torch.equal(again(rows), expected)
    torch.testing.assert_close(model.only(1)(rows), expected[:, [1]])
    assert model.parameter_count == again.parameter_count > 0
