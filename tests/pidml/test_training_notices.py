"""Trainings that taught a network little say so, in log, files, bundle and report; good ones say nothing."""

import json
import logging

import numpy as np
import pytest
import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.data.taught import Taught
from pidml.export import export_bundle
from pidml.report import collect
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.tracks import FEATURES
from pidml.training import train
from pidml.training.notices import chance_notices, notices_before

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (6000, 4000, 500))


def trained(prepared, folder, job):
    (folder / "out").mkdir(parents=True)
    return train(prepared, job, TARGET_NAMES, folder / "work", folder / "out"), folder / "out"


@pytest.mark.parametrize("architecture", ["masked-mlp", "attention", "boosted-trees", "random-forest"])
def test_a_good_training_says_nothing(prepared, tmp_path, caplog, architecture):
    summary, out = trained(prepared, tmp_path, small_job(architecture))
    assert summary.notices == ()
    assert json.loads((out / "training.json").read_text())["notices"] == []
    assert not [record for record in caplog.records if record.name.startswith("pidml") and record.levelno > 20]


def test_a_model_that_learned_nothing_names_every_species_wherever_one_looks(prepared, tmp_path, caplog):
    job = small_job("random-forest")
    job = job.model_copy(update={"model": job.model.model_copy(update={"leaf_tracks": 1_000_000})})
    with caplog.at_level(logging.WARNING):
        summary, out = trained(prepared, tmp_path, job)
    assert [line.partition(":")[0] for line in summary.notices] == list(TARGET_NAMES)
    assert all("no better than chance" in line for line in summary.notices)
    assert all(line in caplog.messages for line in summary.notices)
    export_bundle([out], prepared, job, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["training"]["notices"] == list(summary.notices)
    text = " ".join((tmp_path / "bundle" / "README").read_text().split())
    assert all(line in text for line in summary.notices)
    assert collect.training({"Train": out})["notices"] == list(summary.notices)


def test_a_rate_that_destroys_a_network_is_seen_by_what_it_gives(prepared, tmp_path):
    summary, _ = trained(prepared, tmp_path, small_job(learning_rate=1.0, schedule="constant", max_epochs=2))
    assert any("no better than chance" in line for line in summary.notices)


def test_chance_is_judged_with_its_error():
    rng = np.random.default_rng(3)
    classes = np.repeat([0, 1, 2], [30, 400, 4000])

    def told(*shifts):
        own = np.stack([rng.normal(size=len(classes)) + shift * (classes == i) for i, shift in enumerate(shifts)], 1)
        return list(chance_notices(classes, own.astype(np.float32), ["kaon", "pion"]))

    assert told(2.0, 2.0) == []
    assert told(2.0, 0.5) == []  # AUC 0.64
    below = told(-0.1, 2.0)
    assert len(below) == 1
    assert below[0].startswith("kaon: certainties are no better than chance on 4,430 validation tracks (AUC 0.")
    assert len(told(-0.3, -0.3)) == 2
    few = np.repeat([0, 2], [3, 500])  # three tracks tell nothing, unless all certainties are one
    assert not list(chance_notices(few, rng.random((503, 1), np.float32), ["kaon"]))
    (line,) = chance_notices(few, np.full((503, 1), 0.25, np.float32), ["kaon"])
    assert "every track has the certainty 0.2500" in line


@pytest.mark.parametrize(
    ("size", "steps"), [(1_048_576, 1), (6000, 1), (3001, 1), (1500, 4), (1200, None), (512, None)]
)
def test_a_batch_of_nearly_the_whole_sample_is_told(size, steps):
    lines = list(notices_before(Taught(FEATURES, (1500, 1500, 1500, 1500), {}), small_job(batch_size=size)))
    assert len(lines) == (steps is not None)
    if lines:
        assert f"training.batch_size is {size:,}, an epoch takes 6,000 tracks: {steps} optimiser step" in lines[0]


def test_trees_take_no_steps():
    job = JobSpec.model_validate({"model": {"architecture": "boosted-trees"}, "training": {"batch_size": 1_048_576}})
    assert notices_before(Taught(FEATURES, (1500, 1500, 1500, 1500), {}), job) == []
