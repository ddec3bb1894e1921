"""Explains a trained classifier on the test sample: tables, Shapley values of every track, plots."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml.atomic import atomic_file, write_json
from pidml.data.prepared import PreparedDataset
from pidml.errors import NoTracks
from pidml.evaluation.labelled import labelled_test
from pidml.evaluation.tables import plain, tree_of
from pidml.evaluation.working_points import WorkingPoints, at_pt, read_working_points
from pidml.explanation import tables
from pidml.explanation.evaluator import Evaluator
from pidml.explanation.permutation import permutation_importance
from pidml.explanation.sample import Matrix, Sample
from pidml.explanation.shapley import Estimate, shapley_values
from pidml.plots import explanation as plots
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES

_log = logging.getLogger(__name__)

Predict = Callable[[Matrix], Matrix]
REPEATS = 4
BACKGROUND = 8
#: Tracks whose Shapley values are computed at a time: many, as each call costs; few, as they share orders.
CHUNK = 1000


def explain_model(prepared: PreparedDataset, train_dirs: Sequence[Path], job: JobSpec, out_dir: Path) -> dict[str, Any]:
    """Explain trained networks; write tables, Shapley values and plots.

    Args:
        prepared: labelled data.
        train_dirs: outputs of Train.
        job: its section ``thresholds``, ``evaluation.explain_tracks`` and ``seed`` are used.
        out_dir: existing directory to write into.

    Returns:
        The content of ``explanation.json``.

    Raises:
        NoLabels: the data are experimental.
        NoTracks: the test sample is empty, or too small to compare any track with others.
        CorruptFile, TrainingError: a training output is damaged or does not fit the others.
        ToolMissing: Captum is not installed.
    """
    from pidml.training import load_classifier

    folders = [Path(folder) for folder in train_dirs]
    points = read_working_points(folders, prepared, job.thresholds)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".evaluator-") as scratch:
        evaluator = Evaluator.of(load_classifier(folders), Path(scratch))
        return explain(prepared, evaluator.predict, points, job, out_dir)


def explain(
    prepared: PreparedDataset,
    predict: Predict,
    thresholds: NDArray[np.float64] | WorkingPoints,
    job: JobSpec,
    out_dir: Path,
) -> dict[str, Any]:
    """Explain any classifier as :func:`explain_model` does a trained network; the same files, answer and errors.

    Args:
        prepared: labelled data.
        predict: raw features (tracks, features), NaN for missing → certainties (tracks, 6) in [0, 1].
        thresholds: per target species, shape (6,), or per bin too; F1 is that of tracks with certainty ≥ threshold.
        job: as for :func:`explain_model`.
        out_dir: existing directory to write into.
    """
    out_dir = Path(out_dir)
    sample = Sample.draw(labelled_test(prepared), prepared.features, job.evaluation.explain_tracks, job.seed)
    if max(len(group) for group in sample.alike) <= BACKGROUND:
        raise NoTracks(
            f"{prepared.path}: no more than {BACKGROUND} of {len(sample)} test tracks lack the same values: too few to "
            "compare any with others",
            "raise preparation.test_fraction or loosen the cuts",
        )
    subjects, outputs = sample.subjects(), predict(sample.features)
    _log.info("Shapley values of %d tracks", len(sample))
    shape = (len(sample), len(TARGET_NAMES), len(sample.names))
    with atomic_file(out_dir / "shapley.npy") as temporary:
        values = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        estimate = shapley_values(
            predict, sample, outputs, values, background=BACKGROUND, chunk=CHUNK, seed=job.seed
        )  # fmt: skip
        values.flush()
    if alone := int((~estimate.explained).sum()):
        _log.warning("%d tracks have no Shapley values: no more than %d others lack the same", alone, BACKGROUND - 1)
    with atomic_file(out_dir / "shapley_tracks.npz") as temporary:
        np.savez_compressed(temporary, row=sample.rows, pattern=sample.pattern, base=estimate.base)
    _log.info("permutation importance on %d tracks", len(sample))
    limits = _limits(thresholds, sample)
    permuted = permutation_importance(predict, sample, subjects, outputs, limits, repeats=REPEATS, seed=job.seed)
    flat = {
        "permutation": tables.permutation_table(permuted, subjects, TARGET_NAMES),
        "shapley": tables.shapley_table(values, sample, subjects, TARGET_NAMES),
    }
    for name, frame in flat.items():
        with atomic_file(out_dir / f"explanation_{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.7g")
    record = plain(_record(sample, flat, estimate, thresholds))
    record["plots"] = plots.draw_all(record, sample, values, out_dir)
    write_json(out_dir / "explanation.json", record)
    return dict(record)


def _limits(thresholds: NDArray[np.float64] | WorkingPoints, sample: Sample) -> Matrix:
    """Return the threshold of each track and species, float32 (tracks, 6)."""
    if isinstance(thresholds, WorkingPoints):
        return thresholds.at(sample.pt)
    return at_pt(thresholds, None, sample.pt)


def _record(
    sample: Sample, flat: dict[str, Any], estimate: Estimate, thresholds: NDArray[np.float64] | WorkingPoints
) -> dict[str, Any]:
    permuted, shapley = flat["permutation"], flat["shapley"]
    codes, counts = np.unique(sample.pattern, return_counts=True)
    return {
        "format": 2,
        "tracks": len(sample),
        "without_shapley": int((~estimate.explained).sum()),
        "patterns": {tables.selection_name(code): count for code, count in zip(codes, counts, strict=True)},
        "features": sample.names,
        "kinds": {each.name: [sample.names[c] for c in each.columns] for each in sample.subjects() if each.is_kind},
        "repeats": REPEATS,
        "background": BACKGROUND,
        "shapley_error": dict(zip(TARGET_NAMES, estimate.error, strict=True)),
        "thresholds": thresholds.rule.rule if isinstance(thresholds, WorkingPoints) else None,
        "permutation": tree_of(
            permuted, ("baseline", "importance", "error"), "species", "selection", "subject", "figure"
        ),
        "shapley": tree_of(shapley, ("mean_abs", "error", "tracks"), "species", "selection", "subject"),
    }  # fmt: skip
