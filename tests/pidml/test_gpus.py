"""GPUs are given to one job at a time, and to the processor only where that is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pidml.errors import ConfigError, GpuUnavailable
from pidml.gpus import Gpu, installed, offered, reserved

UUIDS = [f"GPU-{letter * 8}-0000" for letter in "abcd"]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nvidia-smi with four GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    rows = "\n".join(f"{index}, {uuid}" for index, uuid in enumerate(UUIDS))
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{rows}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "locks"


def test_without_a_driver_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed() == []
    environment: dict[str, str] = {}
    with reserved("auto", 1, environment=environment, locks=tmp_path) as devices:
        assert devices == []
    with pytest.raises(GpuUnavailable, match="asks for 1 GPU, 0 can be used here"):
        reserved("gpu", 1, environment=environment, locks=tmp_path).__enter__()


def test_two_trainings_get_different_gpus(driver: Path) -> None:
    first, second = {}, {}
    with reserved("gpu", 2, environment=first, locks=driver) as one:
        with reserved("auto", 1, environment=second, locks=driver) as two:
            assert [gpu.index for gpu in one] == [0, 1]
            assert [gpu.index for gpu in two] == [2]
            assert first["CUDA_VISIBLE_DEVICES"] == f"{UUIDS[0]},{UUIDS[1]}"
            assert second["CUDA_VISIBLE_DEVICES"] == UUIDS[2]
        assert "CUDA_VISIBLE_DEVICES" not in second, "the environment is as before"
    with reserved("gpu", 4, environment={}, locks=driver) as everything:
        assert len(everything) == 4, "all were given back"


def test_what_was_given_is_honoured(driver: Path) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": f"3,{UUIDS[1]}"}
    assert [gpu.index for gpu in offered("", environment)] == [3, 1]
    with reserved("gpu", 1, environment=environment, locks=driver) as devices:
        assert devices == [Gpu(3, UUIDS[3])]
    assert environment == {"CUDA_VISIBLE_DEVICES": f"3,{UUIDS[1]}"}
    assert [gpu.index for gpu in offered("1", environment)] == [1]
    with pytest.raises(ConfigError, match="--gpus: there is no GPU '0'"):
        offered("0", environment)


@pytest.mark.parametrize("names", ["", "-1", "NoDevFiles", "10000"])
def test_a_job_that_was_given_no_gpu_takes_none(driver: Path, names: str) -> None:
    """HTCondor gives 10000 to jobs that asked for none, Slurm NoDevFiles."""
    environment = {"CUDA_VISIBLE_DEVICES": names}
    assert offered("", environment) == []
    with reserved("auto", 1, environment=environment, locks=driver) as devices:
        assert devices == []
        assert environment["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("names", ["7", "GPU-x", "0,0", "-1", "a b"])
def test_gpus_that_do_not_exist_are_refused(driver: Path, names: str) -> None:
    with pytest.raises(ConfigError, match="--gpus"):
        offered(names, {})


def test_the_processor_only_where_allowed(driver: Path) -> None:
    with reserved("gpu", 4, environment={}, locks=driver):
        environment: dict[str, str] = {}
        with reserved("auto", 1, environment=environment, locks=driver) as devices:
            assert devices == []
            assert environment["CUDA_VISIBLE_DEVICES"] == "", "torch must not take a GPU that another job holds"
        with pytest.raises(GpuUnavailable, match=rf"in use by others: 0 \(process {os.getpid()}\)"):
            reserved("gpu", 1, environment={}, locks=driver).__enter__()
        with pytest.raises(GpuUnavailable):
            reserved("auto", 1, "2", environment={}, locks=driver).__enter__()
    with reserved("cpu", 1, environment={}, locks=driver) as devices:
        assert devices == []


def test_half_a_reservation_is_given_back(driver: Path) -> None:
    three = reserved("gpu", 3, environment={}, locks=driver)
    with three, reserved("auto", 2, environment={}, locks=driver) as devices:
        assert devices == []
        with reserved("gpu", 1, environment={}, locks=driver) as last:
            assert [gpu.index for gpu in last] == [3]


def test_a_killed_process_gives_its_gpu_back(driver: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from pidml.gpus import reserved\n"
        "with reserved('gpu', 4, locks=Path(sys.argv[1])) as held:\n"
        "    print(len(held), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(driver)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "4\n"
        with pytest.raises(GpuUnavailable, match=f"process {holder.pid}"):
            reserved("gpu", 1, environment={}, locks=driver).__enter__()
        holder.kill()
        holder.wait()
    with reserved("gpu", 4, environment={}, locks=driver) as devices:
        assert len(devices) == 4


def test_a_link_in_place_of_a_lock_is_not_followed(driver: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("text")
    driver.mkdir()
    (driver / f"{UUIDS[0]}.lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        reserved("gpu", 1, environment={}, locks=driver).__enter__()
    assert precious.read_text() == "text"
