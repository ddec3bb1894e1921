import numpy as np
import pytest
import torch
from scipy.stats import norm
from support.prepared_data import write_prepared

from pidml.evaluation.nsigma import nsigma_selection
from pidml.evaluation.paired import PairedCounts, differences, f1_ratio
from pidml.evaluation.thresholds import best_f1_threshold
from pidml.simulation import posterior
from pidml.spec import load_job
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import load_classifier, train

pytestmark = pytest.mark.slow
ARCHITECTURES = ("masked-mlp", "attention", "ensemble", "mlp", "boosted-trees", "random-forest")
#: What of a preset is made smaller.
SMALLER = {"boosted-trees": {"rounds": 60}, "random-forest": {"trees": 20}}


@pytest.fixture(autouse=True)
def threads():
    """Results are the same to the last bit for one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def trained(prepared, folder, job, experimental=None, **model):
    out = folder / "out"
    out.mkdir()
    job = job.model_copy(
        update={
            "model": job.model.model_copy(update=model),
            "training": job.training.model_copy(update={"accelerator": "cpu"}),
        }
    )
    train(prepared, job, TARGET_NAMES, folder / "work", out, experimental=experimental)
    return load_classifier(out)


def selected(test, certainty):
    """Decisions at the thresholds that are best on these very tracks, (tracks, species)."""
    cuts = [best_f1_threshold(test.pdg == t.pdg, certainty[:, index])[0] for index, t in enumerate(TARGETS)]
    return certainty >= np.array(cuts, np.float32)


def optimum(prepared, test):
    columns = {name: test.features[:, index] for index, name in enumerate(prepared.features)}
    return selected(test, posterior(columns, prepared.features).astype("float32"))


def joint_counts(test, first, second):
    """Per species, how often the two selections decide which way, on signal and on background."""
    paired = PairedCounts((0.0, 100.0))
    paired.add(test.pdg, test.column("fPt"), first, second)
    return dict(zip(TARGET_NAMES, paired.values.sum(axis=1), strict=True))


def assert_not_above(test, first, second):
    """No F1 of the first selection exceeds that of the second by more than fluctuations of the tracks can do.

    The chance that one of six species of equally good selections does so is 1 in 100.
    """
    limit = norm.isf(0.01 / len(TARGETS))
    for name, cells in joint_counts(test, first, second).items():
        assert differences(cells, seed=1)["f1"].significance < limit, name


def test_the_masked_mlp_preset_comes_close_to_the_optimum(tmp_path):
    prepared = write_prepared(tmp_path / "data", (300_000, 75_000, 150_000), seed=31)
    test = prepared.split("test")
    reached = selected(test, trained(prepared, tmp_path, load_job("masked-mlp")).predict(test.features))
    possible = optimum(prepared, test)
    for name, cells in joint_counts(test, reached, possible).items():
        assert f1_ratio(cells, seed=1).value > 0.985, name  # a third of the tracks that the stated 99 % is for
    assert_not_above(test, reached, possible)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (50_000, 15_000, 50_000), seed=32)


def assert_between_nsigma_and_optimum(prepared, job, reached):
    test = prepared.split("test")
    selection = nsigma_selection(prepared, job.evaluation)
    assert selection is not None
    traditional = selection.deviations(test, slice(0, len(test))) < selection.limit
    for name, cells in joint_counts(test, reached, traditional).items():
        assert f1_ratio(cells, seed=1).value > 1, name
    assert_not_above(test, reached, optimum(prepared, test))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mlp+regression"])
def test_every_architecture_beats_nsigma(prepared, tmp_path, architecture):
    architecture, _, imputation = architecture.partition("+")
    job = load_job(architecture if architecture in SMALLER else "masked-mlp")
    short = {"max_epochs": 4, "batch_size": 256} if architecture == "attention" else {"max_epochs": 15}
    job = job.model_copy(update={"training": job.training.model_copy(update=short)})
    test = prepared.split("test")
    model = SMALLER.get(
        architecture, {"architecture": architecture} | ({"imputation": imputation} if imputation else {})
    )
    reached = selected(test, trained(prepared, tmp_path, job, **model).predict(test.features))
    assert_between_nsigma_and_optimum(prepared, job, reached)


@pytest.mark.parametrize("method", ["dann", "cdan"])
def test_adapted_networks_beat_nsigma(prepared, tmp_path, method):
    """Experimental tracks are as the simulated ones: adaptation must not cost what was learned."""
    experimental = write_prepared(tmp_path / "experimental", (20_000, 5000, 10), seed=33, simulation=False)
    job = load_job("adaptation")
    short = {"max_epochs": 12, "batch_size": 512}
    job = job.model_copy(
        update={
            "training": job.training.model_copy(update=short),
            "adaptation": job.adaptation.model_copy(update={"method": method}),
        }
    )
    features = prepared.split("test").features
    reached = selected(prepared.split("test"), trained(prepared, tmp_path, job, experimental).predict(features))
    assert_between_nsigma_and_optimum(prepared, job, reached)


def test_what_beats_another_selection_is_found(prepared):
    test = prepared.split("test")
    worse = optimum(prepared, test)
    rng = np.random.default_rng(3)
    worse = np.where(rng.random(worse.shape) < 0.01, ~worse, worse)
    with pytest.raises(AssertionError):
        assert_not_above(test, optimum(prepared, test), worse)
