"""The tracks that are explained."""

from __future__ import annotations

import pytest
from support.prepared_data import write_prepared

from pidml.data.prepared import PreparedDataset
from pidml.explanation.sample import Sample


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Training, validation and test samples."""
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (3000, 500, 4000), seed=11)


@pytest.fixture(scope="module")
def sample(prepared: PreparedDataset) -> Sample:
    """Some of the test tracks."""
    return Sample.draw(prepared.split("test"), prepared.features, 1500, seed=1)
