"""What a submission that the scheduler does not take is called: a mistake, or something that passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.schedulers.standin import StandIn

from pidml.errors import TRANSIENT_CODES, BatchError
from tasks import remote_manager
from tasks.remote_manager import HTCondorManager, SlurmManager, Watched


@pytest.mark.parametrize("kind", [SlurmManager, HTCondorManager])
def test_a_scheduler_that_takes_nothing_for_long_is_away(
    kind: type[Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = StandIn(tmp_path / "spool")
    scheduler.set("down")
    for key, value in scheduler.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(remote_manager, "PATIENCE", 0.5)
    (tmp_path / "job.sh").write_text("#!/bin/sh\n")
    manager = kind()
    manager.tokens[str(tmp_path / "job.sh")] = "pidml-Step-0-abc"
    error = manager.submit(str(tmp_path / "job.sh"))
    assert isinstance(error, BatchError)
    assert "no job was taken for 0.5 s" in error.what
    assert error.code in TRANSIENT_CODES
