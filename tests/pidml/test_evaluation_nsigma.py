from __future__ import annotations

import json

import numpy as np
import pytest
from support.prepared_data import write_prepared

from pidml import species
from pidml.data.prepared import PreparedDataset
from pidml.evaluation.nsigma import nsigma_selection
from pidml.evaluation.response import HYPOTHESES, calibrate, profile
from pidml.spec.model_sections import Evaluation


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("nsigma") / "data", (60_000, 2_000, 30_000))


def _with_aux(source: PreparedDataset, path, columns) -> PreparedDataset:
    """Copy a dataset with other aux columns (name → function of the split)."""
    path.mkdir()
    meta = source.meta | {"aux": list(columns)}
    (path / "meta.json").write_text(json.dumps(meta))
    for name in ("train", "validation", "test"):
        split = source.split(name)
        (path / name).mkdir()
        np.save(path / name / "features.npy", split.features)
        np.save(path / name / "pdg.npy", split.pdg)
        values = np.stack([make(split) for make in columns.values()], axis=1).astype(np.float32)
        np.save(path / name / "aux.npy", values)
    return PreparedDataset.open(path)


def test_profile_finds_a_known_trend_and_width():
    rng = np.random.default_rng(0)
    momentum = rng.uniform(0.2, 4.0, 100_000)
    values = np.log(momentum) * 2 - 1 + 0.07 * rng.standard_normal(100_000)
    measured = profile(momentum, values)
    at = np.geomspace(0.25, 3.5, 20)
    np.testing.assert_allclose(measured.centre(at), np.log(at) * 2 - 1, atol=0.02)
    np.testing.assert_allclose(measured.width(at), 0.07, rtol=0.15)


def test_profile_needs_some_tracks():
    assert profile(np.array([1.0, 2.0]), np.array([0.0, 1.0])) is None
    assert profile(np.array([]), np.array([])) is None


def test_calibrated_deviations_of_the_right_species_are_standard(prepared):
    response, test = calibrate(prepared.split("train")), prepared.split("test")
    for hypothesis, particle in HYPOTHESES.items():
        mine = np.abs(test.pdg) == particle.pdg
        momentum = test.column("fP")[mine]
        for deviation in (
            response.tpc_nsigma(hypothesis, momentum, test.column("fTPCSignal")[mine]),
            response.tof_nsigma(hypothesis, momentum, test.column("fBeta")[mine]),
        ):
            there = deviation[~np.isnan(deviation)]
            assert len(there) > 200
            assert abs(np.median(there)) < 0.2
            low, high = np.quantile(there, [0.1587, 0.8413])
            assert (high - low) / 2 == pytest.approx(1, abs=0.12)


def test_selection_rejects_the_wrong_sign_and_accepts_its_own(prepared):
    selection = nsigma_selection(prepared, Evaluation())
    test = prepared.split("test")
    distance = selection.deviations(test, slice(0, len(test)))
    sign = test.column("fSign")
    for position, target in enumerate(species.TARGETS):
        assert np.isinf(distance[sign * target.sign < 0, position]).all()
        own = np.asarray(test.pdg) == target.pdg
        assert np.mean(distance[own, position] < 3) > 0.9
    assert "calibrated" in selection.description


def test_table_columns_are_used_and_combined_as_stated(prepared, tmp_path):
    columns = {name: lambda split, name=name: split.column(name) for name in ("fP", "fPt", "fSign", "fTPCSignal")}
    columns |= {
        f"fTPCNSigma{h}": lambda split, v=v: np.full(len(split), v) for h, v in (("Pi", 1.0), ("Ka", -2.9), ("Pr", 3.1))
    }
    columns["fTOFNSigmaPi"] = lambda split: np.where(np.arange(len(split)) % 2, 4.0, np.nan)
    columns["fTOFNSigmaKa"] = lambda split: np.where(np.arange(len(split)) % 2, -1.0, -999.0)
    data = _with_aux(prepared, tmp_path / "columns", columns)
    selection = nsigma_selection(data, Evaluation())
    assert "columns" in selection.description
    test = data.split("test")
    distance = selection.deviations(test, slice(0, len(test)))
    momentum, sign = test.column("fP"), test.column("fSign")
    positive, with_tof, above = sign > 0, np.arange(len(test)) % 2 == 1, momentum > 0.5
    pion, kaon, proton = (distance[:, i] for i in range(3))
    np.testing.assert_allclose(pion[positive & with_tof & above], np.hypot(1, 4), rtol=1e-6)
    np.testing.assert_allclose(pion[positive & with_tof & ~above], 1.0)
    np.testing.assert_allclose(pion[positive & ~with_tof], 1.0)
    np.testing.assert_allclose(kaon[positive & with_tof & above], np.hypot(2.9, 1), rtol=1e-6)
    np.testing.assert_allclose(kaon[positive & ~with_tof], 2.9, rtol=1e-6)
    np.testing.assert_allclose(proton[positive], 3.1, rtol=1e-6)


def test_unavailable_without_what_it_needs(prepared, tmp_path):
    without = _with_aux(prepared, tmp_path / "bare", {"fP": lambda split: split.column("fP")})
    assert nsigma_selection(without, Evaluation()) is None


def test_a_species_without_examples_is_never_accepted(tmp_path):
    data = write_prepared(tmp_path / "data", (20_000, 10, 1_000), keep_pdg=(211, -211, 321, -321))
    selection = nsigma_selection(data, Evaluation())
    distance = selection.deviations(data.split("test"), slice(0, 1_000))
    assert np.isinf(distance[:, [2, 5]]).all()
    assert (distance[:, 0] < 3).any()
