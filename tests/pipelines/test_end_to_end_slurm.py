"""A queued task becomes networks on the server by way of a batch system: ``PIDML_SITE=slurm pidml poll``."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.schedulers.real_slurm import RealSlurm
from support.training_site import CONFIGURATION, LFNS, running_site

from pidml.server.protocol import TaskStatus
from pidml.species import TARGETS

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]


def test_the_poller_runs_a_servers_task_on_slurm(slurm: RealSlurm, tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        # the node of the tests has two processors, a training asks for four
        profile = tmp_path / "slurm.cfg"
        profile.write_text("[pidml_site]\nworkflow: slurm\nresources: train.cores = 2\n")
        site.environment = slurm.environment | {"PIDML_SITE": str(profile)}
        task = site.queue(LFNS, CONFIGURATION)
        polled = site.poll("--once")
        assert polled.returncode == 0, polled.stderr + (tmp_path / f"store/jobs/{task}/law.log").read_text()
        assert site.status(task) is TaskStatus.COMPLETED
        assert site.results(task)["ONNX"] == sorted(f"{species.name}.onnx" for species in TARGETS)
        jobs = slurm.jobs(tmp_path / "store")
        assert {state for _, state in jobs} == {"COMPLETED"}
        ran = [name.split("-")[1] for name, _ in jobs]
        assert sorted(ran) == ["DownloadAOD", "DownloadAOD", "ProduceTracks", "Train"]
        secret = site.machine.secret.encode()
        written = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
        assert not [path for path in written if secret in path.read_bytes()], "no job was told the machine's key"
