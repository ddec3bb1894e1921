import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pidml import tracks
from pidml.models import Inputs, build
from pidml.models.attention import Attention
from pidml.models.layers import Dropout
from pidml.simulation import generate_tracks
from pidml.spec.model_sections import Model

torch.set_num_threads(1)  # networks this small lose by being shared out
FEATURES = len(tracks.FEATURES)
SPECS = {
    "masked-mlp": Model(architecture="masked-mlp", hidden=(24, 16)),
    "ensemble": Model(architecture="ensemble", hidden=(12, 10)),
    "mlp": Model(architecture="mlp", hidden=(24, 16)),
    "mlp-regression": Model(architecture="mlp", hidden=(24, 16), imputation="regression"),
    "attention": Model(architecture="attention", embed_hidden=(20, 12), d_model=8, ff_hidden=16, pool_hidden=(10,)),
}


def inputs(names=tracks.FEATURES):
    """A scaling of about the right size: standardised features are divided by their spread."""
    columns = generate_tracks(2000, 3).columns
    mean, std = np.zeros(len(names)), np.ones(len(names))
    for index, name in enumerate(names):
        if name in tracks.STANDARDISED:
            mean[index], std[index] = np.nanmean(columns[name]), np.nanstd(columns[name])
    return Inputs(tuple(names), tuple(mean.tolist()), tuple(std.tolist()))


def simulated(size=64, names=tracks.FEATURES):
    columns = generate_tracks(size, 5).columns
    scale = inputs(names)
    raw = np.stack([columns[name].astype(np.float32) for name in names], axis=1)
    return torch.from_numpy(((raw - np.array(scale.mean)) / np.array(scale.std)).astype(np.float32))


def network(architecture, outputs=6, names=tracks.FEATURES):
    torch.manual_seed(1)
    net = build(SPECS[architecture], inputs(names), outputs).eval()
    net.learn_inputs(simulated(500, names))
    return net


@pytest.mark.parametrize("architecture", SPECS)
@settings(max_examples=15, deadline=None)
@given(pattern=st.lists(st.integers(0, 2**FEATURES - 1), min_size=1, max_size=12), order=st.randoms())
def test_a_track_does_not_depend_on_its_batch(architecture, pattern, order):
    net, features = network(architecture), simulated()[: len(pattern)]
    for row, bits in enumerate(pattern):
        hidden = [bool(bits >> index & 1) for index in range(FEATURES)]
        features[row, torch.tensor(hidden)] = torch.nan
    with torch.no_grad():
        together = net(features)
        rows = list(range(len(pattern)))
        order.shuffle(rows)
        torch.testing.assert_close(net(features[rows]), together[rows], atol=2e-5, rtol=1e-5)
        alone = torch.cat([net(features[row : row + 1]) for row in rows])
    torch.testing.assert_close(alone, together[rows], atol=2e-5, rtol=1e-5)
    assert torch.isfinite(together).all()


@pytest.mark.parametrize("architecture", SPECS)
def test_nothing_at_all_and_outliers_give_finite_output(architecture):
    net = network(architecture)
    features = torch.full((5, FEATURES), torch.nan)
    features[1:] = torch.tensor([0.0, 1e6, -1e6, 1e30])[:, None]
    with torch.no_grad():
        assert torch.isfinite(net(features)).all()


@pytest.mark.parametrize("architecture", ["masked-mlp", "ensemble", "attention"])
def test_a_missing_value_is_not_a_zero(architecture):
    net, features = network(architecture), simulated(8)
    column = tracks.FEATURES.index("fBeta")
    hidden, zero = features.clone(), features.clone()
    hidden[:, column], zero[:, column] = torch.nan, 0.0
    with torch.no_grad():
        assert (net(hidden) - net(zero)).abs().min() > 1e-6


@pytest.mark.parametrize("architecture", SPECS)
@pytest.mark.parametrize(
    "names", [("fTPCSignal",), ("fTPCSignal", "fP", "fSign"), ("fPt", "fEta", "fBeta"), ("fPx", "fPy", "fPz", "fBeta")]
)
def test_any_choice_of_features(architecture, names):
    names = tuple(name for name in names if name in tracks.COLUMNS)
    net, features = network(architecture, names=names), simulated(names=names)
    features[::3] = torch.nan
    with torch.no_grad():
        logits = net(features)
    assert logits.shape == (len(features), 6)
    assert torch.isfinite(logits).all()
    assert logits[1::3].std(dim=0).min() > 1e-4  # the features matter


def unpadded(net: Attention, standardised):
    """Evaluate one track with only the tokens that are there, block by block, with no mask anywhere."""
    there = ~torch.isnan(standardised)
    columns, _ = net.columns(standardised[None])
    rows = net.embedding(columns)[there]
    for block in net.blocks:
        query_key_value = block.query_key_value(block.norm_attention(rows))
        query, key, value = query_key_value.reshape(len(rows), 3, block.heads, block.size).unbind(1)
        heads = [torch.softmax(query[:, h] @ key[:, h].T, dim=1) @ value[:, h] for h in range(block.heads)]
        rows = rows + block.mix(torch.cat(heads, dim=1))
        rows = rows + block.narrow(torch.relu(block.widen(block.norm_forward(rows))))
    rows = net.norm(rows)
    weights = torch.softmax(net.pooling(rows), dim=0)
    return net.output(net.head((weights * rows).sum(dim=0)))


def test_masked_attention_equals_unpadded_tokens():
    net, features = network("attention").double(), simulated(40).double()
    features[torch.rand(features.shape, generator=torch.Generator().manual_seed(2)) < 0.3] = torch.nan
    with torch.no_grad():
        expected = torch.stack([unpadded(net, row) for row in features])
        assert (net(features) - expected).abs().max() < 1e-6
        single = network("attention")
        assert (single(features.float()) - expected.float()).abs().max() < 1e-5


def test_deployed_size():
    net = build(Model(architecture="attention"), inputs(), 6)
    assert 35_000 < net.parameter_count < 45_000
    tokens = net.columns.token
    assert set(tokens) == set(range(FEATURES))  # every feature has a value in its token


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_as_asked(probability):
    layer = Dropout(probability).train()
    torch.manual_seed(0)
    ones = torch.ones(400, 401)  # not a multiple of the eight activations per random word
    dropped = layer(ones)
    assert dropped.mean() == pytest.approx(1.0, abs=0.03)
    assert (dropped == 0).float().mean() == pytest.approx(probability, abs=0.01)
    assert torch.equal(layer.eval()(ones), ones)


@pytest.mark.parametrize("architecture", SPECS)
def test_rescaling_the_output(architecture):
    net, features = network(architecture), simulated(8)
    factor, offset = torch.arange(1.0, 7.0), torch.linspace(-1, 1, 6)
    with torch.no_grad():
        before = net(features)
        net.rescale_output(factor, offset)
        torch.testing.assert_close(net(features), factor * before + offset)


def test_regression_fills_in_what_a_linear_relation_says():
    names = ("fTPCSignal", "fDcaXY", "fTOFSignal")
    scale = Inputs(names, (0.0, 0.0, 0.0), (1.0, 1.0, 2.0))
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(400, 3, generator=generator)
    features[:, 2] = 0.5 + 2 * features[:, 0] - features[:, 1]
    truth = features.clone()
    features[::2, 2] = torch.nan
    filled = {}
    for imputation in ("mean", "regression"):
        net = build(Model(architecture="mlp", hidden=(4,), imputation=imputation), scale, 1)
        net.learn_inputs(features)
        filled[imputation] = net.encode(features)
    column = net.columns.token.index(2)
    torch.testing.assert_close(filled["regression"][:, column], truth[:, 2].clamp(-8, 8), atol=1e-3, rtol=1e-3)
    mean = features[1::2, 2].mean()
    torch.testing.assert_close(filled["mean"][::2, column], mean.expand(200))


def test_an_ensemble_routes_each_pattern_to_a_network_of_its_own():
    net, features = network("ensemble"), simulated(30)
    names = list(tracks.FEATURES)
    features[:, :] = torch.nan_to_num(features)
    features[10:20, names.index("fBeta")] = torch.nan
    features[15:25, names.index("fTRDPattern")] = torch.nan
    chosen = net.encode(features)[:, net.columns.size :].argmax(dim=1)
    groups = [set(chosen[rows].tolist()) for rows in (slice(0, 10), slice(10, 15), slice(15, 20), slice(20, 25))]
    assert [len(group) for group in groups] == [1, 1, 1, 1]
    assert len(set.union(*groups)) == 4
    with torch.no_grad():
        before = net(features)
        net.weights[-1][chosen[0]] += 1.0
        changed = (net(features) != before).any(dim=1)
    assert changed.tolist() == [row < 10 or row >= 25 for row in range(30)]
