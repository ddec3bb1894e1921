"""The O2Physics producer: AO2D files go through a chain of O2Physics tasks, track tables come out.

Files whose tables have different versions need different converters, so they go through chains of their own; what
these make is merged. Every run has a folder of its own with everything it reads (``list.txt``, ``configuration.json``,
``stages.txt``, the script) under plain names; the AO2D files are linked into it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidml import resources, tracks
from pidml.atomic import explained, write_json, write_text
from pidml.data import root_files
from pidml.data.track_tables import TrackTable, list_tables
from pidml.errors import PathRefused, ProducerError
from pidml.producer import ao2d, o2physics_chain, o2physics_run
from pidml.producer.merge import COLLISION, Drawing, merge
from pidml.producer.o2physics_runtime import SCRIPT, Runtime, resolve
from pidml.spec.data_sections import Producer

_OUTPUT, _HISTOGRAMS = f"{o2physics_chain.OUTPUT_NAME}.root", "AnalysisResults.root"


@dataclass(frozen=True)
class ChainRun:
    """One run: files whose tables have the same versions, and the chain for them.

    Attributes:
        inputs: AO2D files.
        outdated: their tables that need a converter.
        stages: the chain, one command line per stage.
        configuration: what becomes ``configuration.json``.
    """

    inputs: tuple[Path, ...]
    outdated: frozenset[str]
    stages: list[list[str]]
    configuration: dict[str, Any]


def plan(inputs: Sequence[Path], producer: Producer, simulation: bool) -> list[ChainRun]:
    """Return the runs that a group of files needs, looking into every file.

    Raises:
        InputMissing, CorruptFile, NoTables, ProducerError: see :func:`pidml.producer.o2physics_chain.outdated_tables`.
    """
    by_tables: dict[frozenset[str], list[Path]] = {}
    for path in inputs:
        by_tables.setdefault(o2physics_chain.outdated_tables(path), []).append(path)
    return [
        ChainRun(
            tuple(paths),
            outdated,
            o2physics_chain.stages(producer, simulation, outdated),
            o2physics_chain.configuration(producer, simulation, outdated),
        )
        for outdated, paths in by_tables.items()
    ]


def produce_o2physics(
    inputs: Sequence[Path],
    out: Path,
    producer: Producer,
    *,
    simulation: bool,
    records: Path,
    drawing: Drawing | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Write ``tracks.root`` and the chain's histograms (``AnalysisResults.root``) into the folder ``out``.

    Args:
        inputs: AO2D files.
        out: an existing folder.
        producer: the job's settings.
        simulation: whether truth is to be had.
        records: where containers are on the record (:func:`pidml.producer.containers.records_of`).
        drawing: which collisions and tracks to keep; all by default.
        environ: tells what is installed here and where the GRID token is.

    Returns:
        Facts for the provenance: O2Physics version and runtime, chains, tracks per directory, what was drawn.

    Raises:
        ToolMissing, ConfigError: O2Physics cannot be run here.
        ProducerError: a stage failed, or what came out is not the table asked for.
        InputMissing, CorruptFile, NoTables, MissingColumn: an input, or what came out, cannot be used.
        DiskFull, StoreError: the output cannot be written.
    """
    drawing = drawing or Drawing()
    runtime = resolve(producer, environ)
    runs = plan(inputs, producer, simulation)
    tables: list[TrackTable] = []
    facts: list[dict[str, Any]] = []
    for number, run in enumerate(runs, start=1):
        folder = out / f"chain-{number}"
        readable = prepare_folder(run, folder)
        command = runtime.command(folder, readable, environ)
        o2physics_run.run(runtime, command, folder, producer.max_hours * 3600, records, environ)
        found = check_output(folder / _OUTPUT, producer, simulation)
        tables += found
        facts.append(_facts_of(run, folder, found))
        _keep_histograms(folder, out, number if len(runs) > 1 else 0)
    result: dict[str, Any] = {"runtime": runtime.kind, "image": runtime.image, "version": runtime.version}
    result["runs"] = facts
    if len(runs) > 1 or drawing.events or drawing.tracks:
        if drawing.events and COLLISION not in tables[0].columns:
            drawing = Drawing(drawing.events, drawing.tracks, drawing.seed, collisions_of(inputs))
        result["merged"] = merge(tables, out / _OUTPUT, drawing)
    else:
        (out / "chain-1" / _OUTPUT).rename(out / _OUTPUT)
    for number in range(1, len(runs) + 1):
        shutil.rmtree(out / f"chain-{number}")
    return result


def prepare_folder(run: ChainRun, folder: Path) -> list[Path]:
    """Fill a new folder with everything that a run reads; return the folders that links in it lead to.

    Raises:
        PathRefused: the folder's path cannot be passed to a container.
        DiskFull, StoreError: the folder cannot be written.
    """
    folder = folder.absolute()
    if any(ord(character) < 32 for path in (folder, *run.inputs) for character in str(path)):
        raise PathRefused(f"{str(folder)!r}: control characters in a path", "move the store with PIDML_STORE")
    with explained(folder):
        folder.mkdir()
        names = [f"input_{number:03d}.root" for number in range(1, len(run.inputs) + 1)]
        o2physics_chain.check_names(names)
        elsewhere = [_link(path, folder / name) for path, name in zip(run.inputs, names, strict=True)]
        shutil.copyfile(resources.scripts() / "o2physics" / SCRIPT, folder / SCRIPT)
    write_text(folder / o2physics_chain.LIST_FILE, "".join(f"{name}\n" for name in names))
    write_text(folder / o2physics_chain.STAGES_FILE, "".join(" ".join(stage) + "\n" for stage in run.stages))
    write_json(folder / o2physics_chain.CONFIGURATION_FILE, run.configuration)
    return sorted({path.parent for path in elsewhere if path is not None})


def check_output(path: Path, producer: Producer, simulation: bool) -> list[TrackTable]:
    """Return the tables that a chain wrote, after checking that they are what was asked for.

    Raises:
        ProducerError: there is no file, or it holds another table, or no tracks.
        CorruptFile: the file is truncated or damaged.
        NoTables: it holds no track table.
        MissingColumn: a table lacks columns.
    """
    _, tree, _ = o2physics_chain.TABLES[simulation, producer.table == "full"]
    if not path.is_file():
        raise ProducerError(
            f"O2Physics ended well but wrote no {path.name}",
            "see the step's log: was the table asked for, and did the reader find any file?",
        )
    tables = list_tables(path)
    if wrong := {table.tree for table in tables} - {tree}:
        raise ProducerError(
            f"O2Physics wrote {', '.join(sorted(wrong))} where {tree} was asked for",
            "see the step's log; do producer.table and dataset.simulation fit the files?",
        )
    # The columns of the large tables differ between versions of O2Physics; those of the small ones are what is read.
    needed = [each.name for each in tracks.TRAINING_COLUMNS if simulation or each.name not in tracks.TRUTH_COLUMNS]
    for table in tables:
        root_files.require_columns(table.path, table.place, list(table.columns), needed)
    if not sum(table.tracks for table in tables):
        raise ProducerError(
            f"O2Physics wrote {tree} with no tracks in any of {len(tables)} directories",
            "see the step's log: does the selection of events and tracks fit the files?",
        )
    return tables


def collisions_of(inputs: Sequence[Path]) -> dict[str, int]:
    """Return the number of collisions in each ``DF_`` directory, over all AO2D files."""
    counts: Counter[str] = Counter()
    for path in inputs:
        with root_files.open_root(path) as file:
            for frame in root_files.data_frames(file, path):
                counts[frame] += ao2d.collisions_in(file, path, frame)
    return dict(counts)


def describe_command(
    inputs: Sequence[Path], producer: Producer, *, simulation: bool, environ: Mapping[str, str] = os.environ
) -> str:
    """Return as text what :func:`produce_o2physics` would run: command, chain, list of files and configuration.

    Args:
        inputs: AO2D files; those that are not there yet are taken to hold the newest tables, and this is said.
        producer: the job's settings.
        simulation: whether truth is to be had.
        environ: tells what is installed here.

    Raises:
        ToolMissing, ConfigError: O2Physics cannot be run here.
        CorruptFile, NoTables, ProducerError: a file that is there cannot be used.
    """
    runtime = resolve(producer, environ)
    there = [path for path in inputs if path.is_file()]
    absent = [path for path in inputs if not path.is_file()]
    runs = plan(there, producer, simulation)
    if absent:
        stages = o2physics_chain.stages(producer, simulation, frozenset())
        configuration = o2physics_chain.configuration(producer, simulation, frozenset())
        runs.append(ChainRun(tuple(absent), frozenset(), stages, configuration))
    parts = []
    for number, run in enumerate(runs, start=1):
        assumed = absent and number == len(runs)
        parts.append(_described(runtime, run, f"chain {number} of {len(runs)}", bool(assumed), environ))
    return "\n\n".join(parts)


def _described(runtime: Runtime, run: ChainRun, title: str, assumed: bool, environ: Mapping[str, str]) -> str:
    command = runtime.command(Path("chain-folder"), (), environ)
    pipe = " |\n  ".join(shlex.join(stage) for stage in run.stages)
    files = "\n".join(f"#   input_{number:03d}.root → {path!s}" for number, path in enumerate(run.inputs, start=1))
    note = "\n# these files are not here yet: converters will be added for the tables that they turn out to hold"
    shown = json.dumps(run.configuration, indent=2, sort_keys=True)
    return (
        f"# {title}; tables to convert: {', '.join(sorted(run.outdated)) or 'none'}{note if assumed else ''}\n"
        f"{shlex.join(command)}\n# which runs, with pipefail:\n  {pipe}\n"
        f"# list.txt:\n{files}\n# configuration.json:\n{shown}"
    )


def _facts_of(run: ChainRun, folder: Path, tables: Sequence[TrackTable]) -> dict[str, Any]:
    """Say what a run did, and which directories of its inputs came out empty."""
    frames: Counter[str] = Counter()
    for table in tables:
        frames[table.frame] += table.tracks
    expected = set()
    for path in run.inputs:
        with root_files.open_root(path) as file:
            expected |= set(root_files.data_frames(file, path))
    without = sorted(expected - {frame for frame, number in frames.items() if number})
    if without:
        shown = ", ".join(without[:10]) + (" …" if len(without) > 10 else "")
        print(f"no tracks came out of {len(without)} of {len(expected)} directories: {shown}", flush=True)  # noqa: T201
    return {
        "files": len(run.inputs),
        "outdated_tables": sorted(run.outdated),
        "stages": [" ".join(stage) for stage in run.stages],
        "o2physics": o2physics_run.loaded(folder),
        "frames": dict(frames),
        "directories_without_tracks": without,
    }


def _keep_histograms(folder: Path, out: Path, number: int) -> None:
    """Keep the quality-assurance histograms beside the table; not every version writes them."""
    path = folder / _HISTOGRAMS
    if path.is_file():
        path.rename(out / (f"AnalysisResults_{number}.root" if number else _HISTOGRAMS))


def _link(path: Path, target: Path) -> Path | None:
    """Give a file a second, plain name; return where a symbolic link leads if only that is possible."""
    real = path.resolve(strict=True)
    try:
        os.link(real, target)
    except OSError:
        target.symlink_to(real)
        return real
    return None
