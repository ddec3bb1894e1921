"""The chain as it is built: stages, converters, configuration; and how O2Physics is entered."""

import csv
import json
import os

import numpy as np
import pytest
import uproot
from pydantic import ValidationError
from support.o2_setup import IMAGE, install

from pidml import resources
from pidml.errors import ConfigError, CorruptFile, NoTables, ProducerError, ToolMissing
from pidml.producer import o2physics, o2physics_chain, o2physics_runtime
from pidml.simulation import RawFormat, write_ao2d
from pidml.spec.data_sections import Producer

NEWEST = frozenset()


def programs(**settings):
    outdated = settings.pop("outdated", NEWEST)
    producer = Producer(backend="o2physics", **settings)
    return [stage[0].removeprefix("o2-analysis-") for stage in o2physics_chain.stages(producer, True, outdated)]


def tables_file(path, *frames):
    """A ROOT file with empty-ish tables of these names per directory."""
    with uproot.recreate(path) as file:
        for number, trees in enumerate(frames, start=1):
            for tree in trees:
                file.mktree(f"DF_{number}/{tree}", {"fX": np.float32}).extend({"fX": np.zeros(1, np.float32)})
    return path


def test_the_older_chain():
    assert programs(chain="older", outdated=frozenset({"O2bc", "O2zdc"})) == [
        "event-selection", "track-propagation", "trackselection", "pid-tof-base", "pid-tof-beta", "timestamp",
        "bc-converter", "zdc-converter", "pid-ml-producer",
    ]  # fmt: skip


def test_the_current_chain():
    assert programs(outdated=frozenset({"O2trackextra_001", "O2mccollision"})) == [
        "tracks-extra-v002-converter", "mccollision-converter", "event-selection-service", "propagationservice",
        "ft0-corrected-table", "multcenttable", "trackselection", "pid-tof-merge", "pid-tpc-service", "pid-ml-producer",
    ]  # fmt: skip


def test_light_ions_go_without_the_two_converters_and_refuse_files_that_need_them():
    assert "converter" not in " ".join(programs(light_ions=True))
    assert programs(light_ions=True, outdated=frozenset({"O2zdc"}))[0] == "zdc-converter"
    with pytest.raises(ProducerError, match="O2mccollision, O2trackextra_001") as caught:
        programs(light_ions=True, outdated=frozenset({"O2trackextra_001", "O2mccollision"}))
    assert "light_ions" in caught.value.hint


@pytest.mark.parametrize(
    ("simulation", "table", "name", "switch"),
    [
        (True, "training", "PIDTRACKSMCML", "processMcMl"),
        (True, "full", "PIDTRACKSMC", "processMcAll"),
        (False, "training", "PIDTRACKSDATAML", "processDataML"),
        (False, "full", "PIDTRACKSDATA", "processDataAll"),
    ],
)
def test_table_and_switch(simulation, table, name, switch):
    producer = Producer(backend="o2physics", table=table, memory_rate_limit=1_000_001, shm_segment_size=2_000_002)
    chain = o2physics_chain.stages(producer, simulation, NEWEST)
    common = "--aod-memory-rate-limit 1000001 --shm-segment-size 2000002 --configuration json://configuration.json -b"
    assert all(" ".join(stage[1:]) == common for stage in chain[:-1])
    writer = f"--aod-writer-keep AOD/{name}/0:::tracks --aod-writer-resdir ."
    assert " ".join(chain[-1][1:]) == f"{common} --aod-file @list.txt {writer}"
    switches = o2physics_chain.configuration(producer, simulation, NEWEST)["pid-ml-producer"]
    assert switches == {key: "true" if key == switch else "false" for key in switches}
    assert len(switches) == 4


def test_the_older_chain_has_configuration_and_writer_only():
    chain = o2physics_chain.stages(Producer(backend="o2physics", chain="older"), True, NEWEST)
    assert all(stage[1:] == ["--configuration", "json://configuration.json", "-b"] for stage in chain[:-1])
    assert " ".join(chain[-1][4:]) == "--aod-writer-keep AOD/PIDTRACKSMCML/0:::tracks --aod-writer-resdir ."


@pytest.mark.parametrize("chain", ["older", "current"])
@pytest.mark.parametrize("simulation", [True, False])
def test_a_configuration_is_fresh_and_follows_the_kind_of_data(chain, simulation):
    producer = Producer(backend="o2physics", chain=chain)
    before = o2physics_chain.template(producer, simulation).read_bytes()
    made = o2physics_chain.configuration(producer, simulation, frozenset({"O2trackextra_001"}))
    assert made["internal-dpl-aod-reader"]["aod-file-private"] == "@list.txt"
    assert made["tracks-extra-v002-converter"] == {"processV000ToV002": "false", "processV001ToV002": "true"}
    if chain == "current":
        service = made["propagation-service"]
        assert (service["processMonteCarlo"], service["processRealData"]) == ("true", "false")[
            :: 1 if simulation else -1
        ]
    made["internal-dpl-aod-reader"].clear()
    assert o2physics_chain.configuration(producer, simulation, NEWEST)["internal-dpl-aod-reader"]
    assert o2physics_chain.template(producer, simulation).read_bytes() == before


def test_the_templates_are_flat_texts_as_dpl_reads_them():
    paths = sorted(resources.configs("producer").glob("*.json"))
    assert len(paths) == 4
    for path in paths:
        for options in json.loads(path.read_text()).values():
            assert all(isinstance(value, str) for value in options.values()), path


def test_a_damaged_template_is_named(monkeypatch, tmp_path):
    (tmp_path / "current-simulation.json").write_text("[]")
    monkeypatch.setattr(resources, "configs", lambda kind: tmp_path)
    with pytest.raises(ConfigError, match=r"current-simulation\.json"):
        o2physics_chain.configuration(Producer(), True, NEWEST)


def test_outdated_tables_are_found_in_every_directory(tmp_path):
    simulated = {
        RawFormat(): set(),
        RawFormat(extra="O2trackextra_001"): {"O2trackextra_001"},
        RawFormat(extra="O2trackextra", mc_collision="O2mccollision"): {"O2trackextra", "O2mccollision"},
    }
    for form, expected in simulated.items():
        write_ao2d(tmp_path / "a.root", 20, seed=1, frames=2, form=form)
        assert o2physics_chain.outdated_tables(tmp_path / "a.root") == expected
    every = [each.table for each in o2physics_chain.CONVERTERS if each.table != "O2trackextra"]
    assert o2physics_chain.outdated_tables(tables_file(tmp_path / "b.root", every, every)) == set(every)
    both = tables_file(tmp_path / "c.root", ["O2bc", "O2bc_001", "O2trackextra", "O2trackextra_002"])
    assert o2physics_chain.outdated_tables(both) == set()
    mixed = tables_file(tmp_path / "d.root", ["O2bc_001"], ["O2bc"])
    with pytest.raises(ProducerError, match=r"d.root: DF_1 and DF_2 hold different versions"):
        o2physics_chain.outdated_tables(mixed)
    (tmp_path / "e.root").write_bytes(both.read_bytes()[:500])
    with pytest.raises(CorruptFile):
        o2physics_chain.outdated_tables(tmp_path / "e.root")
    with uproot.recreate(tmp_path / "f.root") as file:
        file["nothing"] = "here"
    with pytest.raises(NoTables):
        o2physics_chain.outdated_tables(tmp_path / "f.root")


def test_files_with_different_tables_go_through_chains_of_their_own(tmp_path):
    new, old = ["O2track_iu", "O2trackextra_002"], ["O2track_iu", "O2trackextra_001"]
    paths = [tables_file(tmp_path / f"{n}.root", trees) for n, trees in enumerate([old, new, old, new, new])]
    runs = o2physics.plan(paths, Producer(backend="o2physics"), True)
    assert [[paths.index(path) for path in run.inputs] for run in runs] == [[0, 2], [1, 3, 4]]
    assert [len(run.stages) for run in runs] == [9, 8]


# --- runtime


def resolve(environ, **settings):
    return o2physics_runtime.resolve(Producer(backend="o2physics", **settings), environ)


def test_auto_takes_what_is_there(tmp_path):
    o2 = install(tmp_path, {})
    assert resolve(o2.environment("alienv", "docker", o2=True)).kind == "current"
    assert resolve(o2.environment("alienv", "docker"), container_image=IMAGE).kind == "alienv"
    assert resolve(o2.environment("docker"), container_image=IMAGE).engine == "docker"
    environment = o2.environment("docker", "podman", "alienv")
    asked = environment | {"PIDML_O2PHYSICS_RUNTIME": "container", "PIDML_O2PHYSICS_IMAGE": IMAGE}
    assert resolve(asked).engine == "podman"
    assert resolve(asked | {"PIDML_O2PHYSICS_ENGINE": "docker"}).engine == "docker"
    assert resolve(asked, container_engine="podman", runtime="container").image == IMAGE
    assert resolve(asked, runtime="alienv").kind == "alienv"


@pytest.mark.parametrize(
    ("settings", "variables", "error", "text"),
    [
        ({}, {}, ToolMissing, "neither o2-analysis-pid-ml-producer nor alienv"),
        ({"runtime": "current"}, {}, ToolMissing, "not on PATH"),
        ({"runtime": "alienv"}, {}, ToolMissing, "alienv is not on PATH"),
        ({"runtime": "container"}, {}, ConfigError, "no image"),
        ({"runtime": "container", "container_image": IMAGE}, {}, ToolMissing, "apptainer or podman or docker"),
        ({"container_image": IMAGE, "container_engine": "podman"}, {}, ToolMissing, "podman is not installed"),
        ({"runtime": "container"}, {"PIDML_O2PHYSICS_IMAGE": "--privileged"}, ConfigError, "no image"),
        ({}, {"PIDML_O2PHYSICS_RUNTIME": "$(id)"}, ConfigError, "PIDML_O2PHYSICS_RUNTIME"),
    ],
)
def test_what_is_absent_is_said(tmp_path, settings, variables, error, text):
    environ = {"PATH": str(tmp_path)} | variables
    with pytest.raises(error, match=text):
        resolve(environ, **settings)


@pytest.mark.parametrize("engine", ["apptainer", "podman", "docker"])
def test_a_container_gets_the_folder_the_links_and_the_token_and_nothing_else(tmp_path, engine):
    folder, elsewhere = tmp_path / 'a,"b" c', tmp_path / "grid: files"
    for name in ("cert", "key"):
        (tmp_path / f"token{name}_{os.getuid()}.pem").write_text("PEM")
    o2 = install(tmp_path / "o2", {})
    environ = o2.environment(engine) | {"TMPDIR": str(tmp_path)}
    runtime = resolve(environ, container_image=IMAGE, o2physics_version="v1")
    command = runtime.command(folder, [elsewhere], environ)
    mounts = [next(csv.reader([command[i + 1]])) for i, word in enumerate(command) if word == "--mount"]
    bound = {each[2]: (each[1], each[3:]) for each in mounts if "cvmfs" not in each[1]}
    assert bound == {
        "destination=/pidml": (f"source={folder}", []),
        f"destination={elsewhere}": (f"source={elsewhere}", ["ro"]),
        "destination=/pidml-token/cert": (f"source={tmp_path}/tokencert_{os.getuid()}.pem", ["ro"]),
        "destination=/pidml-token/key": (f"source={tmp_path}/tokenkey_{os.getuid()}.pem", ["ro"]),
    }
    assert command[-4:] == [IMAGE, "bash", "run-chain.sh", "v1"]
    assert "the machine's own key" not in " ".join(command)


@pytest.mark.parametrize(
    "settings",
    [
        {"o2physics_version": "latest -c evil"},
        {"o2physics_version": "-c"},
        {"o2physics_version": "$(id)"},
        {"container_image": "--privileged"},
        {"container_image": "x;id"},
        {"chain": "older", "table": "full"},
        {"chain": "older", "light_ions": True},
        {"shm_segment_size": -1},
        {"max_hours": 0},
    ],
)
def test_hostile_and_senseless_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        Producer(backend="o2physics", **settings)


def test_identity_holds_what_changes_the_tables():
    native, o2 = Producer(), Producer(backend="o2physics")
    assert native.identity() == Producer(chain="older", light_ions=True, o2physics_version="v1").identity()
    assert o2.identity() == Producer(backend="o2physics", magnetic_field=0.2, runtime="alienv", max_hours=1).identity()
    assert o2.identity() != Producer(backend="o2physics", o2physics_version="v1").identity()
