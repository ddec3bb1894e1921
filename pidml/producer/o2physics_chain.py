"""What a run of O2Physics consists of: the stages of the chain, the converters that files need, the configuration.

A chain is a pipe of DPL tasks. Every word of it is plain (:data:`_PLAIN`): file names stand in ``list.txt`` only, and
the chain runs in the folder that holds it, so nothing that a name can contain ever reaches a shell or a command line.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidml import resources
from pidml.data import root_files
from pidml.errors import ConfigError, NoTables, ProducerError
from pidml.spec.data_sections import Producer

LIST_FILE, CONFIGURATION_FILE, STAGES_FILE = "list.txt", "configuration.json", "stages.txt"
OUTPUT_NAME = "tracks"
PRODUCER = "o2-analysis-pid-ml-producer"
_CONVERTER_OF_EXTRA = "o2-analysis-tracks-extra-v002-converter"
_PLAIN = re.compile(r"@?[\w./:=-]+", re.ASCII)

#: (simulation?, full table?) → table that O2Physics writes, its tree, and the switch of the producer task.
TABLES: dict[tuple[bool, bool], tuple[str, str, str]] = {
    (True, False): ("PIDTRACKSMCML", "O2pidtracksmcml", "processMcMl"),
    (True, True): ("PIDTRACKSMC", "O2pidtracksmc", "processMcAll"),
    (False, False): ("PIDTRACKSDATAML", "O2pidtracksdataml", "processDataML"),
    (False, True): ("PIDTRACKSDATA", "O2pidtracksdata", "processDataAll"),
}


@dataclass(frozen=True)
class Converter:
    """A converter of an outdated AO2D table.

    Attributes:
        table: the outdated table.
        program: the task that converts it.
        newer: versions that need no conversion; where one is there too, the outdated table is not needed.
        switch: switch of ``tracks-extra-v002-converter`` that fits the table.
    """

    table: str
    program: str
    newer: tuple[str, ...]
    switch: str = ""


CONVERTERS: tuple[Converter, ...] = (
    Converter("O2trackextra", _CONVERTER_OF_EXTRA, ("O2trackextra_001", "O2trackextra_002"), "processV000ToV002"),
    Converter("O2trackextra_001", _CONVERTER_OF_EXTRA, ("O2trackextra_002",), "processV001ToV002"),
    Converter("O2mccollision", "o2-analysis-mccollision-converter", ("O2mccollision_001",)),
    Converter("O2bc", "o2-analysis-bc-converter", ("O2bc_001",)),
    Converter("O2collision", "o2-analysis-collision-converter", ("O2collision_001",)),
    Converter("O2fdd", "o2-analysis-fdd-converter", ("O2fdd_001",)),
    Converter("O2mcparticle", "o2-analysis-mc-converter", ("O2mcparticle_001",)),
    Converter("O2mfttrack", "o2-analysis-mft-tracks-converter", ("O2mfttrack_001",)),
    Converter("O2zdc", "o2-analysis-zdc-converter", ("O2zdc_001",)),
)
#: Converters that the chain for O–O and Ne–Ne goes without.
_NOT_FOR_LIGHT_IONS = (_CONVERTER_OF_EXTRA, "o2-analysis-mccollision-converter")

_OLDER = (
    "o2-analysis-event-selection",
    "o2-analysis-track-propagation",
    "o2-analysis-trackselection",
    "o2-analysis-pid-tof-base",
    "o2-analysis-pid-tof-beta",
    "o2-analysis-timestamp",
)
_CURRENT = (
    "o2-analysis-event-selection-service",
    "o2-analysis-propagationservice",
    "o2-analysis-ft0-corrected-table",
    "o2-analysis-multcenttable",
    "o2-analysis-trackselection",
    "o2-analysis-pid-tof-merge",
    "o2-analysis-pid-tpc-service",
)


def outdated_tables(path: Path) -> frozenset[str]:
    """Return the tables of an AO2D file, over all its ``DF_`` directories, that a converter has to bring up to date.

    Raises:
        InputMissing, CorruptFile: see :func:`pidml.data.root_files.reading`.
        NoTables: the file has no ``DF_`` directories.
        ProducerError: its directories hold different versions of a table, which no chain can read in one run.
    """
    found: set[str] = set()
    with root_files.open_root(path) as file:
        frames = root_files.data_frames(file, path)
        if not frames:
            raise NoTables(f"{path}: no DF_ directories in this ROOT file", "is it an AO2D file?")
        for number, frame in enumerate(frames):
            trees = set(root_files.trees_in(file, path, frame))
            needed = {each.table for each in CONVERTERS if each.table in trees and not trees & set(each.newer)}
            if number and needed != found:
                raise ProducerError(
                    f"{path}: {frames[0]} and {frame} hold different versions of tables"
                    f" (outdated: {', '.join(sorted(found)) or 'none'}; {', '.join(sorted(needed)) or 'none'})",
                    "split the file, or leave it out of dataset.files",
                )
            found = needed
    return frozenset(found)


def converters(outdated: frozenset[str], light_ions: bool = False) -> list[str]:
    """Return the converters that a chain needs for files with these outdated tables, in the order of the chain.

    Raises:
        ProducerError: the variant for light ions has no converter for one of them.
    """
    programs = list(dict.fromkeys(each.program for each in CONVERTERS if each.table in outdated))
    if light_ions and (absent := [program for program in programs if program in _NOT_FOR_LIGHT_IONS]):
        tables = sorted(each.table for each in CONVERTERS if each.table in outdated and each.program in absent)
        raise ProducerError(
            f"the chain for O–O and Ne–Ne runs without {', '.join(absent)}, but the files hold {', '.join(tables)}",
            "are these O–O or Ne–Ne files? if not, set producer.light_ions (the server's IsONe) to false",
        )
    return programs


def stages(producer: Producer, simulation: bool, outdated: frozenset[str]) -> list[list[str]]:
    """Return the chain: one command line per stage, in the order of the pipe.

    Args:
        producer: chain, table, variant and memory limits.
        simulation: whether the files are simulated.
        outdated: what :func:`outdated_tables` found in the files of this run.

    Raises:
        ProducerError: see :func:`converters`.
    """
    extra = converters(outdated, producer.light_ions)
    programs = [*_OLDER, *extra] if producer.chain == "older" else [*extra, *_CURRENT]
    memory: list[str] = []
    files: list[str] = []
    if producer.chain == "current":
        memory += ["--aod-memory-rate-limit", str(producer.memory_rate_limit)]
        memory += ["--shm-segment-size", str(producer.shm_segment_size)]
        # The tasks of this chain set themselves up by metadata of the files, which DPL reads of files named here only.
        files = ["--aod-file", f"@{LIST_FILE}"]
    common = [*memory, "--configuration", f"json://{CONFIGURATION_FILE}", "-b"]
    table, _, _ = TABLES[simulation, producer.table == "full"]
    writer = ["--aod-writer-keep", f"AOD/{table}/0:::{OUTPUT_NAME}", "--aod-writer-resdir", "."]
    chain = [[program, *common] for program in programs] + [[PRODUCER, *common, *files, *writer]]
    assert all(_PLAIN.fullmatch(word) for stage in chain for word in stage)
    return chain


def configuration(producer: Producer, simulation: bool, outdated: frozenset[str]) -> dict[str, Any]:
    """Return a fresh configuration for one run: the template of the chain, with reader, converter and table set.

    Raises:
        ConfigError: the template that comes with the package is absent or damaged.
    """
    path = template(producer, simulation)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no readable configuration: {error}", "install the package again") from error
    result = copy.deepcopy(found)
    result.setdefault("internal-dpl-aod-reader", {})["aod-file-private"] = f"@{LIST_FILE}"
    switches = {each.switch: each.table in outdated for each in CONVERTERS if each.switch}
    if any(switches.values()):
        result["tracks-extra-v002-converter"] = _as_text(switches)
    _, _, chosen = TABLES[simulation, producer.table == "full"]
    result.setdefault("pid-ml-producer", {}).update(
        _as_text({switch: switch == chosen for _, _, switch in TABLES.values()})
    )
    return result


def template(producer: Producer, simulation: bool) -> Path:
    """Return the path of the configuration template for a chain and kind of data."""
    return resources.configs("producer") / f"{producer.chain}-{'simulation' if simulation else 'data'}.json"


def check_names(names: Sequence[str]) -> None:
    """Check the names that go into ``list.txt``: one plain name per line, relative to the run's folder."""
    assert all(_PLAIN.fullmatch(name) for name in names)


def _as_text(switches: dict[str, bool]) -> dict[str, str]:
    """DPL reads switches as texts."""
    return {name: "true" if on else "false" for name, on in switches.items()}
