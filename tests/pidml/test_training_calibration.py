import numpy as np
import pytest
import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import load_classifier, train
from pidml.training.calibration import calibrate
from pidml.training.objective import certainty, loss

torch.set_num_threads(1)


def calibration_error(truth, scores, bins=20):
    """Expected calibration error: Σ n/N · |fraction of truth − mean score| over bins of the score."""
    index = np.minimum((scores * bins).astype(int), bins - 1)
    return sum(
        abs(truth[index == each].mean() - scores[index == each].mean()) * (index == each).mean()
        for each in range(bins)
        if (index == each).any()
    )


def distorted(objective, size=60_000):
    """Labels drawn from known probabilities, and logits that overstate them."""
    generator = torch.Generator().manual_seed(3)
    logits = 1.5 * torch.randn(size, 7 if objective == "softmax" else 6, generator=generator)
    logits[:, :6] -= 1.0
    if objective == "softmax":
        classes = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0]
    else:  # one species in question; the others never occur
        logits[:, 1:] = -20.0
        classes = torch.where(torch.rand(size, generator=generator) < torch.sigmoid(logits[:, 0]), 0, 6)
    return logits, 2.5 * logits + 0.7 * torch.arange(logits.shape[1]) / 6, classes


@pytest.mark.parametrize("objective", ["binary", "softmax"])
def test_a_known_distortion_is_undone(objective):
    true, given, classes = distorted(objective)
    found = calibrate(objective, given, classes)
    corrected = given * torch.tensor(found.factor) + torch.tensor(found.offset)
    probability, expected = certainty(objective, corrected), certainty(objective, true)
    assert (probability - expected).abs().max() < 0.03
    assert found.loss_after < found.loss_before
    assert found.loss_after == pytest.approx(float(loss(objective, corrected.double(), classes)), abs=1e-4)
    truth = (classes == 0).numpy()
    before = calibration_error(truth, certainty(objective, given)[:, 0].numpy())
    after = calibration_error(truth, probability[:, 0].numpy())
    assert after < 0.3 * before


def test_nothing_to_gain_changes_little():
    true, _, classes = distorted("softmax")
    found = calibrate("softmax", true, classes)
    assert np.allclose(found.factor, 1.0, atol=0.03)
    assert found.loss_after <= found.loss_before


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (12_000, 8000, 8000))


@pytest.mark.parametrize(
    ("architecture", "objective"),
    [
        ("masked-mlp", "binary"),
        ("masked-mlp", "softmax"),
        ("attention", "binary"),
        ("ensemble", "softmax"),
        ("mlp", "binary"),
        ("boosted-trees", "softmax"),
        ("random-forest", "binary"),
    ],
)
def test_training_gives_calibrated_certainties(prepared, tmp_path, architecture, objective):
    """Undersampling distorts the prior of every species; calibration on validation restores it."""
    out = tmp_path / "out"
    out.mkdir()
    job = small_job(architecture, objective=objective, undersample=True, batch_size=64, max_epochs=6)
    summary = train(prepared, job, TARGET_NAMES, tmp_path / "work", out)
    found = summary.calibration
    assert found.loss_after < found.loss_before
    test = prepared.split("test")
    scores = load_classifier(out).predict(test.features)
    # What the network said before: the correction undone on the logits.
    network = load_classifier(out).module.parts[0].network
    with torch.no_grad():
        logits = network(torch.from_numpy(prepared.scaling.apply(np.asarray(test.features))))
    before = certainty(objective, (logits - torch.tensor(found.offset)) / torch.tensor(found.factor)).numpy()
    errors = [
        [calibration_error(test.pdg == target.pdg, values[:, index]) for index, target in enumerate(TARGETS)]
        for values in (before, scores)
    ]
    assert np.mean(errors[1]) < np.mean(errors[0])
    assert max(errors[1]) < 0.03
