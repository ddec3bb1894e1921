"""Settings of all tests, and the real schedulers that several files use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.schedulers.real_htcondor import RealHTCondor
    from support.schedulers.real_slurm import RealSlurm

# Machines that run tests are shared: how long an example takes says nothing about the code.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture(scope="session")
def slurm() -> Iterator[RealSlurm]:
    """A real Slurm of one node with accounting."""
    from support.schedulers.daemons import short_folder
    from support.schedulers.real_slurm import RealSlurm, install

    install()
    with short_folder("slurm-") as folder, RealSlurm(folder).running() as made:
        yield made


@pytest.fixture(scope="session")
def htcondor() -> Iterator[RealHTCondor]:
    """A real HTCondor pool of one machine."""
    from support.schedulers.daemons import short_folder
    from support.schedulers.real_htcondor import RealHTCondor

    with short_folder("condor-") as folder, RealHTCondor(folder).running() as made:
        yield made
