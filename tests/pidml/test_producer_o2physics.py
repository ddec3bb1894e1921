"""Runs of the O2Physics producer against stand-in programs, which check what they get and fail on demand."""

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import uproot
from support.container_daemon import container_daemon
from support.o2_setup import IMAGE, install

from pidml.data.track_tables import list_tables
from pidml.errors import CorruptFile, MissingColumn, NoTables, PathRefused, ProducerError, ToolMissing
from pidml.producer import o2physics, o2physics_run
from pidml.producer.dispatch import produce
from pidml.producer.merge import Drawing
from pidml.producer.shares import Share
from pidml.simulation import RawFormat, write_ao2d, write_track_table
from pidml.simulation.track_tables import TableFormat
from pidml.spec.data_sections import Producer

HOSTILE = "a $(touch ran) `touch ran` 'b\" ;touch ran; #c, |d&é"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Inputs and what the last stage copies, made once."""
    folder = tmp_path_factory.mktemp("prepared")
    ready = {}
    for tree in ("O2pidtracksmcml", "O2pidtracksdataml", "O2pidtracksmc"):
        ready[tree] = str(folder / f"{tree}.root")
        write_track_table(ready[tree], 300, 1, frames=2, form=TableFormat(tree, metadata=False))
    ready |= {name: str(folder / f"{name}.root") for name in ("no rows", "no tables", "few columns", "histograms")}
    write_track_table(ready["no rows"], 0, 1, frames=2)
    with uproot.recreate(ready["no tables"]) as file:
        file["something"] = "else"
    with uproot.recreate(ready["few columns"]) as file:
        file.mktree("DF_1/O2pidtracksmcml", {"fP": np.float32}).extend({"fP": np.ones(3, np.float32)})
    with uproot.recreate(ready["histograms"]) as file:
        file["hP"] = np.histogram([1.0, 2.0])
    ready["truncated"] = ready["O2pidtracksmcml"]
    ready["wrong tree"] = ready["O2pidtracksdataml"]
    write_ao2d(folder / "AO2D.root", 40, seed=2, frames=2)
    return folder / "AO2D.root", ready


@pytest.fixture
def o2(tmp_path, prepared):
    with container_daemon() as daemon:
        yield install(tmp_path / "o2", prepared[1], daemon)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def make(inputs, out, environ, simulation=True, drawing=None, **settings):
    producer = Producer(backend="o2physics", **settings)
    return o2physics.produce_o2physics(
        inputs, out, producer, simulation=simulation, records=records(out), drawing=drawing, environ=environ
    )


def records(out):
    return out.with_name("containers")


@pytest.mark.parametrize(
    ("tools", "settings"),
    [
        ((), {}),
        (("alienv",), {}),
        (("alienv",), {"o2physics_version": "daily-20260101-0000-1", "chain": "older"}),
        (("apptainer",), {"container_image": IMAGE}),
        (("podman",), {"container_image": IMAGE}),
        (("docker",), {"container_image": IMAGE, "table": "full"}),
    ],
    ids=["current", "alienv", "alienv-older", "apptainer", "podman", "docker-full"],
)
def test_every_way_to_enter_o2physics(prepared, o2, tmp_path, tools, settings):
    source, ready = prepared
    inputs = tmp_path / HOSTILE / "AO2D.root"
    inputs.parent.mkdir()
    inputs.write_bytes(source.read_bytes())
    out = tmp_path / HOSTILE / "out"
    out.mkdir()
    facts = make([inputs], out, o2.environment(*tools, o2=not tools), **settings)
    tree = "O2pidtracksmc" if settings.get("table") == "full" else "O2pidtracksmcml"
    assert (out / "tracks.root").read_bytes() == Path(ready[tree]).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["AnalysisResults.root", "tracks.root"]
    assert facts["runs"][0]["frames"] == {"DF_1": 150, "DF_2": 150}
    if tools == ("alienv",):
        version = settings.get("o2physics_version", "latest")
        assert facts["runs"][0]["o2physics"] == {"root": "/sw/O2Physics", "modules": f"O2/1.0:O2Physics/{version}"}
    assert not list(tmp_path.rglob("ran"))
    calls = o2.calls()
    assert "MACHINE_SECRET_KEY" not in {name for call in calls for name in call.get("environment", [])}
    assert not any("touch" in word for call in calls for word in call["arguments"] if "source=" not in word)
    assert len([call for call in calls if call["program"].startswith("o2-")]) == len(facts["runs"][0]["stages"])


def test_experimental_data(prepared, o2, out):
    make([prepared[0]], out, o2.environment(o2=True), simulation=False)
    assert {table.tree for table in list_tables(out / "tracks.root")} == {"O2pidtracksdataml"}


def test_files_of_different_versions_are_converted_and_merged(prepared, tmp_path, out):
    ready = {"histograms": prepared[1]["histograms"]}
    o2 = install(tmp_path / "o2", ready)
    paths = []
    forms = [
        RawFormat(),
        RawFormat(extra="O2trackextra_001", mc_collision="O2mccollision"),
        RawFormat(),
        RawFormat(extra="O2trackextra"),
    ]
    for number, form in enumerate(forms):
        paths.append(tmp_path / f"{number}.root")
        write_ao2d(paths[-1], 30, seed=number, frames=2, form=form, first_frame=2 * (number // 2) + 1)
    facts = make(paths, out, o2.environment("alienv"))
    assert [run["outdated_tables"] for run in facts["runs"]] == [
        [], ["O2mccollision", "O2trackextra_001"], ["O2trackextra"],
    ]  # fmt: skip
    tables = list_tables(out / "tracks.root")
    assert [(table.frame, table.tracks) for table in tables] == [(f"DF_{n}", 50) for n in range(1, 9)]
    assert facts["merged"]["written"] == 400
    assert sorted(path.name for path in out.glob("Analysis*")) == [f"AnalysisResults_{n}.root" for n in (1, 2, 3)]
    with uproot.open(out / "tracks.root") as merged:
        assert merged["DF_1/O2pidtracksmcml"].typenames()["fPdgCode"] == "int32_t"
        assert merged["DF_1/O2pidtracksmcml"].typenames()["fTRDPattern"] == "uint8_t"


def test_the_stand_in_refuses_a_chain_without_the_converters_that_a_file_needs(prepared, tmp_path, out, monkeypatch):
    """Shows that the test above could fail."""
    o2 = install(tmp_path / "o2", {"histograms": prepared[1]["histograms"]})
    write_ao2d(tmp_path / "a.root", 20, seed=1, form=RawFormat(extra="O2trackextra_001"))
    monkeypatch.setattr(o2physics.o2physics_chain, "outdated_tables", lambda path: frozenset())
    with pytest.raises(ProducerError, match=r"the tables need .*tracks-extra-v002"):
        make([tmp_path / "a.root"], out, o2.environment(o2=True))


@pytest.mark.parametrize(
    ("faults", "died", "also"),
    [
        ({"event_selection_service": {"status": 3}}, "1 (o2-analysis-event-selection-service) ended with", True),
        ({"multcenttable": {"status": 9}}, "4 (o2-analysis-multcenttable) ended with status 9", True),
        ({"trackselection": {"signal": signal.SIGSEGV}}, "5 (o2-analysis-trackselection) was killed by SIGSEGV", True),
        ({"pid_ml_producer": {"status": 1}}, "8 (o2-analysis-pid-ml-producer) ended with status 1", False),
        ({"pid_ml_producer": {"signal": 9}}, "8 (o2-analysis-pid-ml-producer) was killed by SIGKILL", False),
    ],
)  # fmt: skip
def test_the_stage_that_died_is_named(prepared, o2, out, capfd, faults, died, also):
    o2.faults(**faults)
    with pytest.raises(ProducerError) as caught:
        make([prepared[0]], out, o2.environment("alienv"))
    assert f"stage {died}" in caught.value.what
    assert ("then also stages" in caught.value.what) == also
    if "status" in next(iter(faults.values())):
        assert "something went wrong" in capfd.readouterr().out
    assert "S3CR3T" not in caught.value.what
    assert not (out / "tracks.root").exists()


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("no file", ProducerError, "ended well but wrote no tracks.root"),
        ("empty file", CorruptFile, "empty"),
        ("no root", CorruptFile, "not a ROOT file"),
        ("truncated", CorruptFile, "truncated"),
        ("no tables", NoTables, "no DF_ directories"),
        ("wrong tree", ProducerError, "wrote O2pidtracksdataml where O2pidtracksmcml was asked for"),
        ("no rows", ProducerError, "with no tracks in any of 2 directories"),
        ("few columns", MissingColumn, "fTPCSignal"),
    ],
)
def test_output_that_is_no_table_is_refused(prepared, o2, out, fault, error, text):
    o2.faults(pid_ml_producer={"output": fault})
    with pytest.raises(error, match=text):
        make([prepared[0]], out, o2.environment(o2=True))
    assert not (out / "tracks.root").exists()


def test_a_program_that_this_o2physics_does_not_have(prepared, o2, out):
    (o2.folder / "o2" / "o2-analysis-multcenttable").unlink()
    for tool in ("alienv", "podman"):
        (out / tool).mkdir()
        with pytest.raises(ToolMissing, match="this O2Physics does not have o2-analysis-multcenttable"):
            make([prepared[0]], out / tool, o2.environment(tool), container_image=IMAGE)
    assert not [call for call in o2.calls() if call["program"].startswith("o2-")]


@pytest.mark.parametrize(
    ("tool", "settings", "text"),
    [
        ("alienv", {"o2physics_version": "v0"}, "O2Physics/v0 was not found"),
        ("docker", {"container_image": "registry.example/other"}, "cannot find image"),
    ],
)
def test_an_environment_that_cannot_be_entered(prepared, o2, out, tool, settings, text):
    with pytest.raises(ProducerError, match="could not be entered") as caught:
        make([prepared[0]], out, o2.environment(tool), **settings)
    assert text in caught.value.what


@pytest.mark.parametrize("tool", ["alienv", "docker"])
def test_a_chain_that_hangs_is_ended_with_everything_it_started(prepared, o2, out, tool):
    o2.faults(pid_ml_producer={"hang": True})
    with pytest.raises(ProducerError, match=r"not done after .* h: .*hanging"):
        make([prepared[0]], out, o2.environment(tool), container_image=IMAGE, max_hours=3 / 3600)
    assert not running(o2)
    assert o2.daemon.running() == []
    assert [call["arguments"][0] for call in o2.calls("docker")][:3] == (
        ["run", "ps", "rm"] if tool == "docker" else []
    )


def running(o2):
    import psutil

    mark = str(o2.folder)
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(mark in word for word in process.info["cmdline"] or []) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process.info["cmdline"])
    return found


def test_inputs_on_another_file_system_are_links_that_a_container_can_follow(prepared, o2, out, monkeypatch):
    def refused(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(o2physics.os, "link", refused)
    make([prepared[0]], out, o2.environment("podman"), container_image=IMAGE)
    call = next(call for call in o2.calls("podman") if call["arguments"][0] == "run")
    assert {"source": str(prepared[0].parent), "destination": str(prepared[0].parent), "ro": True} in call["mounts"]


def test_a_name_that_no_list_can_hold_is_refused(prepared, o2, tmp_path):
    folder = tmp_path / "new\nline"
    folder.mkdir()
    with pytest.raises(PathRefused, match="control characters"):
        make([prepared[0]], folder, o2.environment(o2=True))


def test_drawing_after_production(prepared, o2, out):
    make([prepared[0]], out, o2.environment(o2=True), drawing=Drawing(tracks=100, seed=4))
    assert sum(table.tracks for table in list_tables(out / "tracks.root")) == 100


def test_dispatch_shares_the_drawing_between_groups_and_passes_tables_through(prepared, o2, out, monkeypatch):
    for name, value in o2.environment("alienv").items():
        monkeypatch.setenv(name, value)
    producer = Producer(backend="o2physics", subsample_tracks=101)
    ready = o2.folder / "ready.root"
    write_track_table(ready, 10, 1, frames=1)
    share = Share(tracks=51)
    facts = produce([prepared[0], ready], out, producer, simulation=True, seed=1, records=records(out), share=share)
    assert facts["produced"]["merged"]["written"] == 51
    assert sorted(path.name for path in out.glob("tracks*")) == ["tracks.root", "tracks_001.root"]


def test_describe_command_shows_what_runs_and_runs_nothing(prepared, o2, tmp_path):
    environ = o2.environment("alienv")
    absent = tmp_path / "not there" / "AO2D.root"
    text = o2physics.describe_command(
        [prepared[0], absent], Producer(backend="o2physics"), simulation=True, environ=environ
    )
    assert f"{o2.folder}/bin-alienv/alienv setenv O2Physics/latest -c bash run-chain.sh" in text
    assert "o2-analysis-pid-ml-producer --aod-memory-rate-limit 2097152000 --shm-segment-size 20000000000" in text
    assert "--aod-writer-keep AOD/PIDTRACKSMCML/0:::tracks" in text
    assert text.count(" |\n") == 14
    assert "not here yet" in text
    configuration = json.loads(text.rsplit("# configuration.json:\n")[-1])
    assert configuration["pid-ml-producer"]["processMcMl"] == "true"
    assert o2.calls() == []


def test_the_output_of_a_run_is_shown_while_it_runs(tmp_path, capfd):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "run-chain.sh").write_text("echo first; read -r < fifo; echo last\n")
    run = threading.Thread(
        target=o2physics_run.run,
        args=(o2physics.Runtime("current"), ["bash", "run-chain.sh"], tmp_path, 60, records(tmp_path)),
    )
    run.start()
    with (tmp_path / "fifo").open("w") as fifo:  # opens when the script, which has printed by then, reads
        text = ""
        while "first" not in text:
            text += capfd.readouterr().out
        assert "last" not in text
        fifo.write("go\n")
    run.join(timeout=30)
    assert "last" in capfd.readouterr().out
