"""Fixtures that several tests of tasks use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.schedulers.standin_farm import Farm


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """Four branches of DownloadAOD and a stand-in scheduler that runs."""
    made = Farm(tmp_path)
    with made.scheduler.running():
        yield made
