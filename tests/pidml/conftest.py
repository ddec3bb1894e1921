"""What several files of tests use: a training machine with the real server; one thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.machine import Machine, running_machine
from support.poller import with_own_store


@pytest.fixture(scope="module")
def server_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A server and a machine registered on it."""
    with running_machine(tmp_path_factory.mktemp("machine")) as machine:
        yield machine


@pytest.fixture
def machine(server_machine: Machine, tmp_path: Path) -> Machine:
    """That machine with a store of the test's own."""
    return with_own_store(server_machine, tmp_path / "store")


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what the stand-in for law does: see ``support.fake_job``."""
    return lambda **plan: monkeypatch.setenv("FAKE_JOB", json.dumps(plan))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Train on one thread: results are the same to the last bit for one number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
