"""Domain adaptation: the reversed gradient, the batches, what it changes in a network, and what it does not."""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import train_test_split
from support import small_training
from support.prepared_data import write_prepared
from support.small_training import adapting, small_job

from pidml.data.prepared import PreparedDataset
from pidml.errors import NoLabels, SpecError, TrainingError
from pidml.export import export_bundle
from pidml.models import Inputs, build
from pidml.simulation.distortion import Distortion
from pidml.spec import JobSpec, load_job
from pidml.spec.adaptation_section import Adaptation
from pidml.spec.job import parse_job
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import load_classifier, train
from pidml.training.adaptation import Adversary, coefficient_at, predicted, reverse_gradient
from pidml.training.batches import Source
from pidml.training.paired_batches import with_experimental
from pidml.training.plan import Plan
from pidml.training.record import CHECKPOINT
from pidml.training.room import Room

pytestmark = pytest.mark.usefixtures("one_thread")

SHIFTED = Distortion(tpc_gain=1.08, tpc_smearing=0.03)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Simulated samples, and experimental ones beside them."""
    folder = tmp_path_factory.mktemp("data")
    simulated = write_prepared(folder / "set", (6000, 3000, 1000))
    return simulated, write_prepared(folder / "experimental", (4000, 2000, 10), 8, simulation=False, distortion=SHIFTED)


def trained(data, folder, job, **options):
    out = folder / "out"
    out.mkdir(parents=True)
    return train(data[0], job, TARGET_NAMES, folder / "work", out, experimental=data[1], **options), out


def section(method="dann", **settings):
    return Adaptation.model_validate({"method": method, "files": ["data.root"]} | settings)


def test_the_reversed_gradient_is_minus_the_coefficient_times_the_gradient():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(4, 3, dtype=torch.float64, generator=generator)

    def value(at, coefficient=None):
        seen = at if coefficient is None else reverse_gradient(at, coefficient)
        return torch.tanh(seen @ weight).pow(2).sum()

    assert torch.equal(reverse_gradient(x, 0.7), x)
    (reversed_gradient,) = torch.autograd.grad(value(x, 0.7), x)
    step = 1e-6
    for index in itertools.product(range(5), range(4)):
        shift = torch.zeros_like(x)
        shift[index] = step
        slope = float((value(x + shift) - value(x - shift)).detach()) / (2 * step)
        assert float(reversed_gradient[index]) == pytest.approx(-0.7 * slope, rel=1e-6, abs=1e-8)


def test_the_coefficient_rises_from_zero_as_published():
    spec = section(coefficient=0.4, steepness=10.0)
    progress = np.linspace(0, 1, 21)
    values = [coefficient_at(spec, p) for p in progress]
    np.testing.assert_allclose(values, 0.4 * (2 / (1 + np.exp(-10 * progress)) - 1), atol=1e-12)
    assert values[0] == 0
    assert np.all(np.diff(values) > 0)


@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_predictions_are_probabilities_of_single_outcomes(objective):
    logits = torch.tensor([[0.3, -1.2, 2.0], [-40.0, 50.0, 0.0]], dtype=torch.float64)
    result = predicted(objective, logits)
    if objective == "softmax":
        expected = torch.softmax(logits, dim=1)
    else:
        yes = torch.sigmoid(logits)
        single = [
            torch.where(torch.tensor([[i == chosen for i in range(3)]]), yes, 1 - yes).prod(dim=1)
            for chosen in (0, 1, 2, None)
        ]
        expected = torch.stack(single, dim=1) / torch.stack(single).sum(dim=0)[:, None]
    torch.testing.assert_close(result, expected)


def network_of(prepared, job):
    torch.manual_seed(1)
    return build(job.model, Inputs.of(prepared.scaling), 6)


@pytest.mark.parametrize("architecture", ["masked-mlp", "attention", "mlp"])
def test_the_logits_are_made_of_the_last_hidden_layer(data, architecture):
    network = network_of(data[0], small_job(architecture)).eval()
    encoded = network.encode(torch.from_numpy(data[0].scaling.apply(data[0].split("test").features[:200])))
    latent = network.latent(encoded)
    assert latent.shape == (200, network.output.in_features)
    assert torch.equal(network.output(latent), network.body(encoded))


@pytest.mark.parametrize("method", ["dann", "cdan"])
def test_the_network_is_driven_against_the_discriminator(data, method):
    job = small_job()
    job = job.model_copy(update={"model": job.model.model_copy(update={"dropout": 0.0})})
    network = network_of(data[0], job)
    rows = [network.encode(torch.from_numpy(data[0].scaling.apply(d.split("train").features[:300]))) for d in data]
    adversary = Adversary(section(method, coefficient=0.5, steepness=1000, hidden=[8]), "binary", network, 10)

    def gradients(steps):
        network.zero_grad()
        adversary.zero_grad()
        _, loss = adversary.step(network, *rows, steps)
        loss.backward()
        return [[p.grad for p in part.parameters()] for part in (network.hidden, network.output, adversary)]

    hidden, output, own = gradients(10)
    nothing, _, same = gradients(0)
    assert all(torch.count_nonzero(gradient) == 0 for gradient in nothing)
    for first, second in zip(own, same, strict=True):
        torch.testing.assert_close(first, second)
    assert all(gradient is None for gradient in output)  # predictions are a condition, nothing to be driven
    network.zero_grad()  # the same loss without reversal, both domains counting the same
    latent = network.latent(torch.cat(rows))
    domain = adversary(latent, network.output(latent), -1.0)
    labels = torch.tensor([0.0, 1.0]).repeat_interleave(300)
    torch.nn.functional.binary_cross_entropy_with_logits(domain, labels).backward()
    for reversed_gradient, parameter in zip(hidden, network.hidden.parameters(), strict=True):
        assert torch.count_nonzero(parameter.grad)
        torch.testing.assert_close(reversed_gradient, -0.5 * parameter.grad)


@pytest.mark.parametrize("resident_bytes", [0, 2**30])
def test_each_step_sees_tracks_of_both_and_a_resumed_epoch_the_same(data, resident_bytes):
    simulated, experimental = data
    rooms = [Room(torch.device("cpu"), resident_bytes)]
    source = Source(simulated, TARGET_NAMES, lambda x: x, rooms, 3000, simulated.scaling)
    epoch = 0
    plan = Plan(256, 5, lambda: epoch)

    def batches():
        batches = source.batches("train", plan)
        others = replace(source, prepared=experimental)
        return with_experimental(section(fraction=2 / 3), batches, batches, others, plan)[0]

    first, again = list(batches()), list(batches())
    alone = list(source.batches("train", plan))
    assert len(first) == len(alone) == 6000 // 256
    for (encoded, classes, others), same, (expected, _) in zip(first, again, alone, strict=True):
        assert (len(encoded), len(classes), len(others)) == (256, 256, 512)
        assert torch.equal(encoded.nan_to_num(), expected.nan_to_num())
        assert torch.equal(others.nan_to_num(), same[2].nan_to_num())
    passes = torch.cat([others[:, 4] for *_, others in first]).split(4000 // 512 * 512)
    assert len(passes) == 4  # the experimental sample is smaller and taken several times
    assert not torch.equal(passes[0], passes[1])  # each time in another order
    momenta = np.asarray(experimental.split("train").features[:, 4])
    assert set(passes[0].tolist()) <= set(momenta.tolist())
    epoch = 1
    assert not torch.equal(next(iter(batches()))[2], first[0][2])


@pytest.mark.parametrize("architecture", ["masked-mlp", "attention"])
@pytest.mark.parametrize(("method", "objective"), [("dann", "softmax"), ("cdan", "binary")])
def test_an_adapted_network_is_an_ordinary_one(data, tmp_path, architecture, method, objective):
    job = adapting(small_job(architecture, objective=objective, max_epochs=2), method, entropy_weighting=True)
    summary, out = trained(data, tmp_path, job)
    assert summary.best_epoch == 1
    assert summary.adaptation.method == method
    assert summary.adaptation.experimental_tracks == 4000
    assert 0.3 < summary.adaptation.domain_accuracy < 0.95
    header, *rows = (out / "history.csv").read_text().splitlines()
    assert header.split(",")[6:] == ["domain_loss", "domain_accuracy", "coefficient"]
    first, last = (dict(zip(header.split(","), map(float, row.split(",")), strict=True)) for row in rows)
    assert last["domain_accuracy"] == summary.adaptation.domain_accuracy
    assert 0 < first["coefficient"] < last["coefficient"] < 1
    (tmp_path / "plain").mkdir()
    plain = job.model_copy(update={"adaptation": Adaptation()})
    train(data[0], plain, TARGET_NAMES, tmp_path / "plain_work", tmp_path / "plain")
    states = [torch.load(folder / "model.pt", weights_only=True)["state"] for folder in (out, tmp_path / "plain")]
    assert [(k, v.shape) for k, v in states[0].items()] == [(k, v.shape) for k, v in states[1].items()]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert "domain" not in (tmp_path / "plain" / "history.csv").read_text()


def test_the_exported_network_is_the_adapted_one(data, tmp_path):
    job = adapting(small_job("attention", max_epochs=1), "cdan")
    _, out = trained(data, tmp_path, job)
    export_bundle([out], data[0], job, tmp_path / "bundle")
    classifier, features = load_classifier(out), data[1].split("validation").features
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "pid.onnx")
    standardised = data[0].scaling.apply(np.asarray(features))
    (certainty,) = session.run(None, {session.get_inputs()[0].name: standardised})
    np.testing.assert_allclose(certainty, classifier.predict(features), atol=1e-5)


def test_streaming_and_undersampling_adapt_too(data, tmp_path):
    job = adapting(small_job(max_epochs=2, undersample=True, batch_size=64), "dann", fraction=0.3)
    summary, _ = trained(data, tmp_path, job, resident_bytes=0, pool_rows=2000)
    assert np.isfinite(summary.adaptation.domain_loss)


@pytest.mark.parametrize(
    ("architecture", "kind", "number", "completed"),
    [("masked-mlp+cdan", "step", 60, 2), pytest.param("attention+dann", "epoch", 1, 2, marks=pytest.mark.slow)],
)
def test_killed_and_resumed_equals_uninterrupted(data, tmp_path, architecture, kind, number, completed):
    lost = tmp_path / "lost"
    arguments = map(str, (data[0].path, tmp_path / "resumed" / "work", lost, architecture, kind, number))
    ended = subprocess.run(
        [sys.executable, small_training.__file__, *arguments], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == -9, ended.stderr
    assert (tmp_path / "resumed" / "work" / CHECKPOINT).is_file()
    name, _, method = architecture.partition("+")
    job = adapting(small_job(name), method)
    resumed, _ = trained(data, tmp_path / "resumed", job)
    whole, _ = trained(data, tmp_path / "whole", job)
    assert (resumed.resumed_epochs, whole.resumed_epochs) == (completed, 0)
    assert resumed.adaptation == whole.adaptation
    outs = [tmp_path / folder / "out" for folder in ("resumed", "whole")]
    states = [torch.load(out / "model.pt", weights_only=True)["state"] for out in outs]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_checkpoint_of_another_adaptation_is_not_resumed(data, tmp_path):
    trained(data, tmp_path, adapting(small_job(max_epochs=1), "dann"))
    for number, settings in enumerate(({"method": "cdan"}, {"method": "dann", "coefficient": 0.5})):
        out = tmp_path / str(number)
        out.mkdir()
        job = adapting(small_job(max_epochs=1), **settings)
        assert train(data[0], job, TARGET_NAMES, tmp_path / "work", out, experimental=data[1]).resumed_epochs == 0


def test_experimental_samples_must_be_there_and_fit(data, tmp_path):
    job = adapting(small_job(max_epochs=1), "dann")
    with pytest.raises(TrainingError, match=r"adaptation\.method = dann: no experimental samples"):
        trained((data[0], None), tmp_path / "a", job)
    other = PreparedDataset(data[1].path, data[1].meta | {"momentum_limits": {"tof": 0.1, "trd": 0.8}})
    with pytest.raises(TrainingError, match=r"momentum_limits .* differ from those of the simulation"):
        trained((data[0], other), tmp_path / "b", job)
    with pytest.raises(NoLabels, match="experimental data has no labels") as caught:
        trained((data[1], data[1]), tmp_path / "c", job)
    assert caught.value.code == "P605"
    assert "adaptation.files" in caught.value.hint


@pytest.mark.parametrize(
    ("job", "text"),
    [
        ({"adaptation": {"method": "dann"}}, "needs experimental files under adaptation.files"),
        ({"adaptation": {"method": "dann", "files": ["a.root", "a.root"]}}, "files named twice: a.root"),
        (
            {"adaptation": {"method": "cdan", "files": ["a.root"]}, "dataset": {"simulation": False}},
            "dataset.simulation must be true",
        ),
        (
            {"adaptation": {"method": "cdan", "files": ["a.root"]}, "model": {"architecture": "ensemble"}},
            "adaptation is not possible with model.architecture = ensemble",
        ),
        (
            {"adaptation": {"method": "dann", "files": ["a.root"]}, "training": {"devices": 2}},
            "training.devices = 2 is not possible with adaptation",
        ),
    ],
)
def test_senseless_jobs_are_refused(job, text):
    with pytest.raises(SpecError) as caught:
        parse_job(job, "test")
    assert text in str(caught.value)


@pytest.mark.slow
def test_adaptation_makes_the_domains_alike_and_identifies_shifted_tracks_better(tmp_path):
    sizes = (60_000, 15_000, 40_000)
    simulated = write_prepared(tmp_path / "simulated", sizes, 41)
    # No training sees the labels of the shifted tracks: they judge.
    shifted = write_prepared(tmp_path / "shifted", sizes, 42, distortion=SHIFTED)
    plain = load_job("masked-mlp").model_dump(mode="json")
    plain["training"] |= {"accelerator": "cpu", "max_epochs": 10, "batch_size": 512}
    auc, f1 = {}, {}
    for method in ("none", "cdan"):
        out = tmp_path / method
        out.mkdir()
        job = adapting(JobSpec.model_validate(plain), method, hidden=[64, 64])
        summary = train(simulated, job, TARGET_NAMES, out / "work", out, experimental=shifted)
        network, tests = load_classifier(out).module.parts[0].network, []
        for data in (simulated, shifted):
            rows = torch.from_numpy(simulated.scaling.apply(np.asarray(data.split("test").features)))
            with torch.inference_mode():
                tests.append(network.latent(network.encode(rows)).numpy())
        domain = np.repeat((0, 1), sizes[2])
        learnt, asked, told, answer = train_test_split(np.concatenate(tests), domain, test_size=0.5, random_state=1)
        probe = HistGradientBoostingClassifier(random_state=1).fit(learnt, told)
        auc[method] = roc_auc_score(answer, probe.predict_proba(asked)[:, 1])
        test = shifted.split("test")
        accepted = load_classifier(out).predict(test.features) >= [summary.thresholds[name] for name in TARGET_NAMES]
        f1[method] = np.mean([f1_score(test.pdg == t.pdg, accepted[:, i]) for i, t in enumerate(TARGETS)])
    # Both differences are 0.04 and 0.010; the statistical errors of such samples are 0.003 and 0.002.
    assert 0.5 < auc["cdan"] < auc["none"] - 0.015
    assert f1["cdan"] > f1["none"] + 0.003
