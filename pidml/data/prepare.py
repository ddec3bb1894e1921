"""From track tables to training, validation and test samples, in one pass over the input and bounded memory.

Reading (in a thread of its own), cuts and the assignment to samples go chunk by chunk; rows are spooled in
buckets, which are then sorted into a random order and written. See :mod:`pidml.data.shuffle` for why the result depends
on the input, the settings and the seed alone. Besides the output, the disk must hold the spool: about as large.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pidml import atomic, tracks
from pidml.data import shuffle, statistics, track_tables
from pidml.data.ahead import ahead
from pidml.data.cuts import CutFlow
from pidml.data.prepared import AUX_COLUMNS, SPLITS, PreparedDataset
from pidml.data.survey import Survey
from pidml.data.taught import Taught
from pidml.errors import NoTables, NoTracks, StoreError
from pidml.spec.data_sections import Preparation

logger = logging.getLogger(__name__)

#: Version of the layout that ``meta.json`` states.
LAYOUT = 1
#: Size of a bucket of all samples together; the training sample's part of it is sorted in memory, once per thread.
_BUCKET_BYTES = 16 * 2**20
#: Rows spooled in memory; what is beyond goes to the disk. Two million tracks of the training table just fit.
_SPOOL_MEMORY = 160 * 2**20
_SORTING_THREADS = 2

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Plan:
    """What is read, and how rows are spooled: ``stored`` columns, PDG code, place."""

    tables: tuple[track_tables.TrackTable, ...]
    preparation: Preparation
    simulation: bool
    seed: int
    aux: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def tracks(self) -> int:
        return sum(table.tracks for table in self.tables)

    @property
    def stored(self) -> tuple[str, ...]:
        """Features first, then the aux columns that are no features."""
        return tuple(dict.fromkeys((*self.preparation.features, *self.aux)))

    @property
    def width(self) -> int:
        """Words per spooled row."""
        return len(self.stored) + 2

    @property
    def buckets(self) -> int:
        return min(max(1, -(-self.tracks * self.width * 4 // _BUCKET_BYTES)), 20_000)

    @property
    def fractions(self) -> tuple[float, float]:
        return self.preparation.validation_fraction, self.preparation.test_fraction


def prepare(
    tables: Sequence[Path],
    out: Path,
    preparation: Preparation,
    simulation: bool,
    seed: int,
    *,
    chunk: int = track_tables.CHUNK,
    progress: Progress | None = None,
) -> PreparedDataset:
    """Make the three samples of the tracks in ROOT files.

    Of ``preparation.max_tracks``, each sample gets its fraction, drawn at random. Tracks with infinite values, or
    momenta that are no numbers or contradict each other, are dropped and counted while they are few (1 in 10,000 per
    file).

    Args:
        tables: ROOT files with track tables.
        out: directory to write into; made if need be. ``meta.json`` is written last. Nothing is flushed to the disk:
            :func:`pidml.atomic.atomic_directory` does that.
        preparation: features, cuts, momentum limits and fractions.
        simulation: whether the tracks must be simulated; if not, ``pdg`` is 0 for all.
        seed: of split and order.
        chunk: tracks read at a time; has no influence on the result.
        progress: called with the number of tracks done and in all.

    Raises:
        InputMissing, CorruptFile, NoTables, MissingColumn, BadValues: an input file cannot be used.
        NoTracks: a sample is empty after the cuts.
        UselessFeature: a feature is missing for every track of the training sample, or constant, and that is refused.
        DiskFull, StoreError: ``out`` cannot be written, or is not empty.
    """
    plan = _plan(tables, preparation, simulation, seed)
    flow = CutFlow(preparation.cuts, preparation.features)
    with atomic.explained(out):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise StoreError(f"{out}: not empty", "give a new directory: prepared data is never changed in place")
        with shuffle.Spool(out, plan.width, len(SPLITS), plan.buckets, _SPOOL_MEMORY) as spool:
            _fill(spool, plan, flow, chunk, progress)
            quotas = _quotas(plan, spool.sizes().sum(axis=1), flow)
            gathered = [_write_sample(spool, plan, out, index, quotas[index]) for index in range(len(SPLITS))]
        taught = Taught.by(gathered[0].survey)
        if preparation.useless_features == "refuse":
            taught.refuse(str(plan.tables[0].path) + (" and other files" if len(tables) > 1 else ""))
        for line in taught.notices():
            logger.warning("%s", line)
        _write_meta(plan, flow, out, gathered, list(taught.notices()))
    return PreparedDataset.open(out)


def _plan(paths: Sequence[Path], preparation: Preparation, simulation: bool, seed: int) -> _Plan:
    tables = tuple(table for path in paths for table in track_tables.list_tables(path))
    if not tables:
        raise NoTables("no track table is given", "name AO2D files or track tables in dataset.files")
    for table in tables:
        if table.simulation != simulation:
            kinds = ("experimental data", "simulation")
            raise NoTables(
                f"{table.path}: {table.place} is a table of {kinds[table.simulation]}, the job is about"
                f" {kinds[simulation]}",
                f"set dataset.simulation: {str(table.simulation).lower()} or give other files; adaptation.files are"
                " experimental",
            )
    needed = {*preparation.features, "fP", "fPt", "fPz", "fTPCSignal"}
    if simulation:
        needed.add("fPdgCode")
    if preparation.cuts.primaries_only:
        needed.add("fIsPhysicalPrimary")
    present = track_tables.common_columns(tables, sorted(needed), [name for name in AUX_COLUMNS if name != "fEta"])
    aux = tuple(name for name in AUX_COLUMNS if name in present or name == "fEta")
    return _Plan(tables, preparation, simulation, seed, aux, tuple(sorted(needed | set(present))))


def _fill(spool: shuffle.Spool, plan: _Plan, flow: CutFlow, chunk: int, progress: Progress | None) -> None:
    """Read all tables, apply the cuts and spool what is left."""
    first, total = 0, plan.tracks
    with closing(ahead(track_tables.iterate(plan.tables, plan.columns, chunk))) as chunks:
        for table, columns in chunks:
            count = len(columns["fP"])
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                columns["fEta"] = np.arcsinh(columns["fPz"] / columns["fPt"])
            passing = flow.select(table, columns)
            hashes = shuffle.row_hashes(plan.seed, first, count)
            if not passing.all():
                hashes = hashes[passing]
                for name, values in columns.items():
                    columns[name] = values[passing]
            if len(hashes):
                sample = shuffle.sample_of(hashes, plan.fractions)
                spool.add(_words(plan, columns), sample, shuffle.place_of(hashes))
            first += count
            if progress is not None:
                progress(first, total)
    flow.refuse_bad_files()


def _words(plan: _Plan, columns: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    """Return the columns of a spooled row but for its place."""
    pdg = columns["fPdgCode"] if plan.simulation else np.zeros(len(columns["fP"]), np.int32)
    return [*(columns[name] for name in plan.stored), pdg.view(np.float32)]


def _quotas(plan: _Plan, sizes: NDArray[np.int64], flow: CutFlow) -> list[int]:
    """Return how many tracks each sample keeps."""
    quotas, limit = [int(size) for size in sizes], plan.preparation.max_tracks
    left = sum(quotas)
    if limit and limit < left:
        validation, test = (round(fraction * limit) for fraction in plan.fractions)
        wanted = (limit - validation - test, validation, test)
        quotas = [min(size, share) for size, share in zip(quotas, wanted, strict=True)]
    flow.removed["max_tracks"] = left - sum(quotas)
    if not all(quotas):
        empty = [name for name, quota in zip(SPLITS, quotas, strict=True) if not quota]
        cuts = ", ".join(f"{name} removed {number}" for name, number in flow.removed.items() if number)
        raise NoTracks(
            f"no track is left for {' and '.join(empty)}: {plan.tracks} tracks in {len(plan.tables)} tables of"
            f" {plan.tables[0].path} {'and other files ' if plan.tables[-1].path != plan.tables[0].path else ''}"
            f"({cuts or 'no cut removed any'})",
            "loosen preparation.cuts, raise preparation.max_tracks or give more files",
        )
    return quotas


@dataclass
class _Gathered:
    """What is counted while a sample is written."""

    tracks: int
    moments: statistics.Moments
    survey: Survey
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(statistics.KINDS), 4), np.int64))


def _write_sample(spool: shuffle.Spool, plan: _Plan, out: Path, index: int, quota: int) -> _Gathered:
    """Sort the buckets of a sample, several at a time, and write each to its place in the arrays."""
    folder = out / SPLITS[index]
    folder.mkdir()
    names = plan.preparation.features
    # Only the training sample decides the scaling.
    scaled = [names.index(name) for name in plan.preparation.standardised] if index == 0 else []
    result = _Gathered(quota, statistics.Moments.zero(len(scaled)), Survey.zero(names))
    with ExitStack() as stack:
        files = [
            _NpyFile(stack.enter_context((folder / name).open("wb")), dtype, shape)
            for name, dtype, shape in (
                ("features.npy", "<f4", (quota, len(names))),
                ("pdg.npy", "<i4", (quota,)),
                ("aux.npy", "<f4", (quota, len(plan.aux))),
            )
        ]

        def write(job: tuple[int, int, int]) -> tuple[statistics.Moments, Survey, NDArray[np.int64]]:
            bucket, first, count = job
            features, pdg, aux = _arrays(plan, spool.sorted_bucket(index, bucket)[:count])
            for file, array in zip(files, (features, pdg, aux), strict=True):
                file.write(array, first)
            counts = statistics.count_tracks(pdg, tracks.feature_pattern(features, names))
            return statistics.Moments.of(features[:, scaled]), Survey.of(features, names), counts

        pool = stack.enter_context(ThreadPoolExecutor(_SORTING_THREADS, thread_name_prefix="sort"))
        for moments, survey, counts in pool.map(write, _jobs(spool.sizes()[index], quota)):
            result.moments, result.survey = result.moments + moments, result.survey + survey
            result.counts += counts
    return result


def _arrays(plan: _Plan, rows: shuffle.Rows) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Take spooled rows apart: features, PDG code, aux. The momentum limits act on the features only."""
    names = plan.preparation.features
    features = np.ascontiguousarray(rows[:, : len(names)])
    aux = np.take(rows, [plan.stored.index(name) for name in plan.aux], axis=1)
    seen = {name: features[:, column] for column, name in enumerate(names)}
    momentum = np.ascontiguousarray(rows[:, plan.stored.index("fP")])
    tracks.apply_momentum_limits(seen, momentum, plan.preparation.momentum_limits.as_limits())
    return features, rows.view(np.int32)[:, -2].copy(), aux


def _jobs(sizes: NDArray[np.int64], quota: int) -> Iterator[tuple[int, int, int]]:
    """Yield bucket, first row and number of rows until the quota is met."""
    first = 0
    for bucket, size in enumerate(sizes.tolist()):
        count = min(size, quota - first)
        if count > 0:
            yield bucket, first, count
            first += count


class _NpyFile:
    """A ``.npy`` file of known shape whose rows are written in any order."""

    def __init__(self, stream: BinaryIO, dtype: str, shape: tuple[int, ...]) -> None:
        np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
        stream.flush()
        self._stream, self._data = stream, stream.tell()
        self._row_bytes = 4 * int(np.prod(shape[1:], dtype=np.int64))

    def write(self, rows: NDArray[Any], first: int) -> None:
        shuffle.write_at(self._stream.fileno(), rows, self._data + first * self._row_bytes)


def _write_meta(plan: _Plan, flow: CutFlow, out: Path, gathered: list[_Gathered], warnings: list[str]) -> None:
    preparation = plan.preparation
    scaling = statistics.scaling_from(gathered[0].moments, preparation.features, preparation.standardised)
    _write_json(out / "scaling.json", scaling.as_o2())
    meta = {
        "layout": LAYOUT,
        "features": list(preparation.features),
        "aux": list(plan.aux),
        "simulation": plan.simulation,
        "seed": plan.seed,
        "momentum_limits": preparation.momentum_limits.model_dump(),
        "input": {"files": len({t.path for t in plan.tables}), "tables": len(plan.tables), "tracks": plan.tracks},
        "likelihood_known": all(table.likelihood_known for table in plan.tables),
        "removed": dict(flow.removed),
        "tracks": {name: sample.tracks for name, sample in zip(SPLITS, gathered, strict=True)},
        "counts": {
            name: statistics.named_counts(sample.counts, plan.simulation)
            for name, sample in zip(SPLITS, gathered, strict=True)
        },
        "surveys": {name: sample.survey.as_json() for name, sample in zip(SPLITS, gathered, strict=True)},
        "warnings": warnings,
    }
    _write_json(out / "meta.json", meta)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON without flushing it to the disk: who publishes the directory flushes all of it."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
