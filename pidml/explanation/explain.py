"""Explains a trained classifier on the test sample: tables, Shapley values of every track, plots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml.atomic import atomic_file, write_json
from pidml.data.prepared import PreparedDataset
from pidml.evaluation.benchmark import read_thresholds
from pidml.evaluation.labelled import labelled_test
from pidml.evaluation.tables import plain
from pidml.explanation import tables
from pidml.explanation.permutation import permutation_importance
from pidml.explanation.sample import Matrix, Sample
from pidml.explanation.shapley import shapley_values
from pidml.plots import explanation as plots
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES

_log = logging.getLogger(__name__)

Predict = Callable[[Matrix], Matrix]
REPEATS = 5
BACKGROUND = 32
#: Tracks for which Shapley values are computed at a time.
CHUNK = 2500


def explain_model(prepared: PreparedDataset, train_dirs: Sequence[Path], job: JobSpec, out_dir: Path) -> dict[str, Any]:
    """Explain trained networks; write tables, Shapley values and plots.

    Args:
        prepared: labelled data.
        train_dirs: outputs of Train.
        job: its ``evaluation.explain_tracks`` and ``seed`` are used.
        out_dir: existing directory to write into.

    Returns:
        The content of ``explanation.json``.

    Raises:
        ToolMissing: Captum is not installed.
        MissingColumn: the data have no labels.
        NoTracks: the test sample is empty.
        CorruptFile, TrainingError: a training output is damaged or does not fit the others.
    """
    from pidml.training import load_classifier

    folders = [Path(folder) for folder in train_dirs]
    classifier = load_classifier(folders)
    return explain(prepared, classifier.predict, read_thresholds(folders), job, out_dir)


def explain(
    prepared: PreparedDataset, predict: Predict, thresholds: NDArray[np.float64], job: JobSpec, out_dir: Path
) -> dict[str, Any]:
    """Explain any classifier as :func:`explain_model` does a trained network; the same files, answer and errors.

    Args:
        prepared: labelled data.
        predict: raw features (tracks, features), NaN for missing → certainties (tracks, 6) in [0, 1].
        thresholds: per target species, shape (6,).
        job: as for :func:`explain_model`.
        out_dir: existing directory to write into.
    """
    out_dir = Path(out_dir)
    sample = Sample.draw(labelled_test(prepared), prepared.features, job.evaluation.explain_tracks, job.seed)
    subjects = sample.subjects()
    _log.info("Shapley values of %d tracks", len(sample))
    shape = (len(sample), len(TARGET_NAMES), len(sample.names))
    with atomic_file(out_dir / "shapley.npy") as temporary:
        values = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        base = shapley_values(predict, sample, values, background=BACKGROUND, chunk=CHUNK, seed=job.seed)
        values.flush()
    _write_tracks(out_dir / "shapley_tracks.npz", sample, base)
    _log.info("permutation importance on %d tracks", len(sample))
    permuted = permutation_importance(predict, sample, subjects, thresholds, repeats=REPEATS, seed=job.seed)
    flat = {
        "permutation": tables.permutation_table(permuted, subjects, TARGET_NAMES),
        "shapley": tables.shapley_table(values, sample, subjects, TARGET_NAMES),
    }
    for name, frame in flat.items():
        with atomic_file(out_dir / f"explanation_{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.7g")
    record = plain(_record(sample, flat))
    record["plots"] = plots.draw_all(record, sample, values, out_dir)
    write_json(out_dir / "explanation.json", record)
    return dict(record)


def _write_tracks(path: Path, sample: Sample, base: NDArray[np.float64]) -> None:
    """Write which tracks the Shapley values belong to, and what they add up from."""
    of_track = np.empty((len(sample), base.shape[1]))
    for group, value in zip(sample.alike, base, strict=True):
        of_track[group] = value
    with atomic_file(path) as temporary:
        np.savez_compressed(temporary, row=sample.rows, pattern=sample.pattern, base=of_track.astype(np.float32))


def _record(sample: Sample, flat: dict[str, Any]) -> dict[str, Any]:
    permuted, shapley = flat["permutation"], flat["shapley"]
    codes, counts = np.unique(sample.pattern, return_counts=True)
    return {
        "format": 1,
        "tracks": len(sample),
        "patterns": {tables.selection_name(code): count for code, count in zip(codes, counts, strict=True)},
        "features": sample.names,
        "kinds": {each.name: [sample.names[c] for c in each.columns] for each in sample.subjects() if each.is_kind},
        "repeats": REPEATS,
        "background": BACKGROUND,
        "permutation": tables.nested(
            permuted, ("baseline", "importance", "error"), "species", "selection", "subject", "figure"
        ),
        "shapley": tables.nested(shapley, ("mean_abs", "error", "tracks"), "species", "selection", "subject"),
    }  # fmt: skip
