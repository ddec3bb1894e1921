"""ProduceTracks with the backend O2Physics, through law."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml
from support.container_daemon import container_daemon
from support.o2_setup import IMAGE, StandIns, install
from support.small_job import kill_group, law_run, law_start, outputs
from support.waiting import eventually

from pidml.data.track_tables import list_tables
from pidml.simulation import RawFormat, write_ao2d, write_track_table


@pytest.fixture
def o2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    ready = str(tmp_path / "ready.root")
    write_track_table(ready, 300, 1, frames=2)
    stand_ins = install(tmp_path / "o2", {"O2pidtracksmcml": ready, "histograms": ready})
    for name, value in stand_ins.environment("alienv").items():
        monkeypatch.setenv(name, value)
    return stand_ins


def write_job(folder: Path, files: int, **producer: object) -> Path:
    paths = []
    for number in range(files):
        paths.append(folder / f"AO2D_{number}.root")
        write_ao2d(paths[-1], 20, seed=number, frames=1, form=RawFormat(extra="O2trackextra_001"))
    job = folder / "job.yaml"
    content = {"dataset": {"files": [str(path) for path in paths]}, "producer": {"backend": "o2physics", **producer}}
    job.write_text(yaml.safe_dump(content))
    return job


def test_tables_histograms_and_provenance_and_a_command_that_is_shown(o2: StandIns, tmp_path: Path) -> None:
    job, store = write_job(tmp_path, 3, files_per_group=2, subsample_tracks=101), tmp_path / "store"
    result = law_run(store, "ProduceTracks", "--job", str(job))
    assert result.returncode == 0, result.stdout + result.stderr
    made = outputs(store, ["ProduceTracks"])["ProduceTracks"]
    assert len(made) == 2
    drawn = []
    for path in made:
        assert sorted(each.name for each in path.iterdir()) == [
            "AnalysisResults.root",
            "provenance.json",
            "tracks.root",
        ]
        drawn.append(sum(table.tracks for table in list_tables(path / "tracks.root")))
        produced = json.loads((path / "provenance.json").read_text())["facts"]["produced"]
        assert produced["runs"][0]["o2physics"]["modules"] == "O2/1.0:O2Physics/latest"
        assert produced["runs"][0]["outdated_tables"] == ["O2trackextra_001"]
    assert sorted(drawn) == [34, 67], "two files and one file"
    before = len(o2.calls())

    shown = law_run(store, "ProduceTracks", "--job", str(job), "--print-command", "1")
    assert shown.returncode == 0, shown.stderr
    assert "# group 1" in shown.stdout
    assert "# group 0" not in shown.stdout
    assert "alienv setenv O2Physics/latest -c bash run-chain.sh" in shown.stdout
    assert "o2-analysis-tracks-extra-v002-converter" in shown.stdout
    assert len(o2.calls()) == before


def test_a_failed_chain_fails_the_step_with_the_reason_in_its_log(o2: StandIns, tmp_path: Path) -> None:
    job, store = write_job(tmp_path, 1), tmp_path / "store"
    o2.faults(pid_tof_merge={"status": 7})
    result = law_run(store, "ProduceTracks", "--job", str(job))
    assert result.returncode == 40
    assert "stage 7 (o2-analysis-pid-tof-merge) ended with status 7" in result.stdout + result.stderr
    assert outputs(store, ["ProduceTracks"])["ProduceTracks"] == []
    (log,) = (store / "ProduceTracks").glob("*.log")
    assert "[ERROR] o2-analysis-pid-tof-merge: something went wrong" in log.read_text()
    assert [path for path in (store / "ProduceTracks").iterdir() if path.is_dir()] == []


def test_a_kill_of_the_job_leaves_no_chain_behind(o2: StandIns, tmp_path: Path) -> None:
    job, store = write_job(tmp_path, 1), tmp_path / "store"
    o2.faults(pid_ml_producer={"hang": True})
    process = law_start(store, "ProduceTracks", "--job", str(job))
    deadline, pause = time.monotonic() + 60, threading.Event()
    while not o2.calls("o2-analysis-pid-ml-producer"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        pause.wait(0.05)
    chain = [each for each in psutil.process_iter() if str(o2.folder / "o2") in " ".join(_words(each))]
    assert chain
    kill_group(process)
    _, left = psutil.wait_procs(chain, timeout=10)
    assert not left
    assert outputs(store, ["ProduceTracks"])["ProduceTracks"] == []


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_a_container_ends_with_its_step_or_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_number: int
) -> None:
    """Under law the step is a process forked by luigi; a stop signal reaches the whole group, as from the poller."""
    ready = str(tmp_path / "ready.root")
    write_track_table(ready, 300, 1, frames=2)
    with container_daemon() as daemon:
        o2 = install(tmp_path / "o2", {"O2pidtracksmcml": ready, "histograms": ready}, daemon)
        for name, value in o2.environment("docker").items():
            monkeypatch.setenv(name, value)
        job, store = write_job(tmp_path, 1, runtime="container", container_image=IMAGE), tmp_path / "store"
        o2.faults(pid_ml_producer={"hang": True})
        process = law_start(store, "ProduceTracks", "--job", str(job))
        eventually(lambda: o2.calls("o2-analysis-pid-ml-producer"), 60)
        os.killpg(process.pid, signal_number)
        process.wait(30)
        eventually(lambda: not daemon.running() or signal_number == signal.SIGKILL)
        assert len(daemon.running()) == (signal_number == signal.SIGKILL)
        o2.faults()
        again = law_run(store, "ProduceTracks", "--job", str(job))
        assert again.returncode == 0, again.stdout + again.stderr
        assert daemon.running() == []
        assert list((store / ".containers").iterdir()) == []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
