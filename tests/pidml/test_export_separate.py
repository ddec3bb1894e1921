"""Six separate networks of every kind make one bundle."""

import numpy as np
import pytest
import torch
from support.prepared_data import write_prepared
from support.trained import trained

from pidml.export import export_bundle
from pidml.export.bundle import Bundle
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Simulated samples and experimental ones."""
    folder = tmp_path_factory.mktemp("data")
    return write_prepared(folder / "set", (4000, 2000, 1000)), write_prepared(
        folder / "data", (2000, 1000, 10), 8, simulation=False
    )


@pytest.mark.parametrize(
    ("architecture", "sections"),
    [
        ("boosted-trees", {"model": {"rounds": 10}}),
        ("random-forest", {"model": {"trees": 10}, "training": {"objective": "softmax"}}),
        ("masked-mlp", {"training": {"objective": "softmax"}}),
        ("mlp", {"adaptation": {"method": "cdan", "files": ["data.root"], "hidden": [8]}}),
    ],
)
def test_separate_heads_are_trained_and_exported(data, tmp_path, architecture, sections):
    simulated, experimental = data
    sections = sections | {"model": {"heads": "separate", **sections.get("model", {})}}
    job, folders = trained(simulated, tmp_path, architecture, experimental, **sections)
    assert len(folders) == len(TARGET_NAMES)
    summary = export_bundle(folders, simulated, job, tmp_path / "bundle")
    assert summary.largest_difference < 1e-5
    features = np.asarray(simulated.split("test").features)
    standardised = simulated.scaling.apply(features)
    bundle = Bundle.open(tmp_path / "bundle", threads=1)
    together = bundle.predict(features)
    assert together.shape == (1000, 6)
    for index, (name, folder) in enumerate(zip(TARGET_NAMES, folders, strict=True)):
        own = load_classifier(folder).predict(features)
        np.testing.assert_allclose(together[:, [index]], own, atol=1e-5)
        session = bundle.network(name)
        (alone,) = session.run(None, {session.get_inputs()[0].name: standardised})
        np.testing.assert_allclose(alone, own, atol=1e-5)
    species = np.asarray(simulated.split("test").pdg)
    assert together[species == 211, 0].mean() > together[species != 211, 0].mean() + 0.3
