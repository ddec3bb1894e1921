"""GPUs are given to one job at a time, and to the processor only where that is allowed."""

from __future__ import annotations

import fcntl
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


def test_the_processor_only_where_allowed(driver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with reserved("gpu", 4, environment={}, locks=driver):
        environment: dict[str, str] = {}
        with reserved("auto", 1, environment=environment, locks=driver) as devices:
            assert devices == []
            assert environment["CUDA_VISIBLE_DEVICES"] == "", "torch must not take a GPU that another job holds"
            assert "no GPU is used: the training asks for 1 GPU; in use by others" in capsys.readouterr().out
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


def protected_regular(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse what the kernel refuses with ``fs.protected_regular``: O_CREAT on another user's file in such a folder."""
    real = os.open

    def opened(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not flags & os.O_EXCL and Path(path).is_file():
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", opened)


def test_a_lock_file_of_another_user_serves(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reserved("gpu", 4, environment={}, locks=driver):
        pass
    protected_regular(monkeypatch)
    with reserved("gpu", 4, environment={}, locks=driver) as devices:
        assert len(devices) == 4


def test_the_lock_file_is_for_everybody_whatever_the_umask(driver: Path) -> None:
    before = os.umask(0o077)
    try:
        with reserved("gpu", 1, environment={}, locks=driver):
            assert (driver / f"{UUIDS[0]}.lock").stat().st_mode & 0o777 == 0o666
            assert driver.stat().st_mode & 0o7777 == 0o1777
    finally:
        os.umask(before)


def test_two_that_make_the_lock_file_at_once_do_not_both_hold_it(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes the file between the look for it and making it."""
    real, made = os.open, []

    def opened(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_EXCL and not made:
            made.append(real(path, os.O_RDWR | os.O_CREAT, 0o666))
            os.pwrite(made[0], b"process 1", 0)
            fcntl.flock(made[0], fcntl.LOCK_EX)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(GpuUnavailable, match=r"0 \(process 1\)"):
        reserved("gpu", 1, "0", environment={}, locks=driver).__enter__()
    os.close(made[0])


@pytest.mark.parametrize("given", ["MIG-11-22", "MIG-GPU-11/3/0"])
def test_a_part_of_a_gpu_is_taken_by_its_name(driver: Path, given: str) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": given}
    with reserved("gpu", 1, environment=environment, locks=driver) as devices:
        assert (str(devices[0]), environment["CUDA_VISIBLE_DEVICES"]) == (given, given)
        with pytest.raises(GpuUnavailable, match=rf"{given} \(process"):
            reserved("gpu", 1, environment={"CUDA_VISIBLE_DEVICES": given}, locks=driver).__enter__()
    with pytest.raises(ConfigError, match="there is no GPU 'MIG-other'"):
        offered("MIG-other", environment)


@pytest.mark.parametrize("given", ["0", "7", "GPU-gone"])
def test_what_was_given_and_is_not_there_is_no_error_where_the_processor_may_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no driver
    environment = {"CUDA_VISIBLE_DEVICES": given}
    with reserved("auto", 1, environment=environment, locks=tmp_path) as devices:
        assert devices == []
    said = f"no GPU is used: CUDA_VISIBLE_DEVICES: there is no GPU '{given}' (this machine has: none)\n"
    assert capsys.readouterr().out == said
    for accelerator, requested in (("gpu", ""), ("auto", "0")):
        with pytest.raises(ConfigError, match="there is no GPU"):
            reserved(accelerator, 1, requested, environment=environment, locks=tmp_path).__enter__()
