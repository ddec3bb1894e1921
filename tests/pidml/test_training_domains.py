"""What is missing must not give the domains away: samples that differ in detectors are refused with numbers."""

import numpy as np
import pytest
from support.prepared_data import write_prepared
from support.small_training import adapting, small_job

from pidml import tracks
from pidml.errors import DomainsDiffer
from pidml.species import TARGET_NAMES
from pidml.training import train
from pidml.training.domains import check_domains

TOF, TRD = ("fTOFSignal", "fBeta"), ("fTRDPattern",)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("simulated") / "set", (4000, 2000, 10))


def experimental(folder, change, seed=8):
    """Write experimental samples that lack more than the simulation does, or less."""
    prepared = write_prepared(folder / "experimental", (4000, 2000, 10), seed, simulation=False)
    for name in ("train", "validation"):
        path = prepared.path / name / "features.npy"
        np.save(path, change(np.load(path)))
    return prepared


def without(columns, share=1.0):
    def change(features):
        rows = np.random.default_rng(1).random(len(features)) < share
        features[np.ix_(rows, [tracks.FEATURES.index(name) for name in columns])] = np.nan
        return features

    return change


def only(pattern):
    return lambda features: features[tracks.feature_pattern(features, tracks.FEATURES) == pattern]


def fixed(name, value):
    def change(features):
        features[:, tracks.FEATURES.index(name)] = value
        return features

    return change


@pytest.mark.parametrize("method", ["dann", "cdan"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(TOF), r"fBeta is there for \d\d\.\d% of simulated and 0\.0% of experimental tracks"),
        (without(TRD), r"fTRDPattern is there for \d\d\.\d% of simulated and 0\.0% of experimental tracks"),
        (without(("fDcaXY",)), r"fDcaXY is there for 100\.0% of simulated and 0\.0% of experimental tracks"),
        (only(0), r"missing pattern no-trd-no-tof: 2,\d+ of 4,000 simulated and 0 of \d+ experimental tracks"),
        (fixed("fX", 3.0), r"fX is 3 for all experimental tracks, not for others"),
    ],
    ids=["no-tof", "no-trd", "absent", "complete", "constant"],
)
def test_what_only_one_domain_has_is_refused_with_numbers(simulated, tmp_path, method, change, said):
    (tmp_path / "out").mkdir()
    given = experimental(tmp_path, change)
    with pytest.raises(DomainsDiffer, match=said) as error:
        train(simulated, adapting(small_job(), method), TARGET_NAMES, tmp_path / "work", tmp_path / "out",
              experimental=given)  # fmt: skip
    assert str(given.path) in str(error.value)
    assert "momentum_limits" in error.value.hint
    # The other way round it is the same.
    with pytest.raises(DomainsDiffer):
        list(check_domains(given, simulated, undersample=False))


def test_shares_that_differ_are_told_unless_batches_equalise_them(simulated, tmp_path):
    given = experimental(tmp_path, without(TRD, 0.5))
    (line,) = check_domains(simulated, given, undersample=False)
    first, second = (each.survey("train") for each in (simulated, given))
    for pattern, name in tracks.PATTERN_NAMES.items():
        shares = [each.patterns[pattern] / each.tracks for each in (first, second)]
        assert f"{name} {shares[0]:.1%} and {shares[1]:.1%}" in line
    assert "training.undersample: true" in line
    assert not list(check_domains(simulated, given, undersample=True))


def test_alike_samples_and_common_absence_are_fine(simulated, tmp_path):
    assert not list(check_domains(simulated, experimental(tmp_path, lambda features: features), undersample=False))
    both = [experimental(tmp_path / str(seed), without(TRD), seed) for seed in (1, 2)]
    assert not list(check_domains(*both, undersample=False))


def test_training_says_how_the_shares_differ(simulated, tmp_path, caplog):
    (tmp_path / "out").mkdir()
    given = experimental(tmp_path, without(TRD, 0.5))
    job = adapting(small_job(max_epochs=1), "dann")
    train(simulated, job, TARGET_NAMES, tmp_path / "work", tmp_path / "out", experimental=given)
    assert sum("distributed differently in simulation and experimental data" in line for line in caplog.messages) == 1
