"""The benchmark: networks, traditional and Bayesian selection and the exact optimum on the same test tracks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidml import species
from pidml.atomic import atomic_file, write_json
from pidml.data.prepared import PreparedDataset, Split
from pidml.errors import CorruptFile
from pidml.evaluation import tables
from pidml.evaluation.bayes import bayesian
from pidml.evaluation.labelled import labelled_test
from pidml.evaluation.nsigma import nsigma_selection
from pidml.evaluation.optimum import exact_posterior
from pidml.evaluation.paired import PairedCounts
from pidml.evaluation.results import Method, Sample, Scores, count, groups, score_table
from pidml.evaluation.working_points import WorkingPoints, chosen, read_working_points
from pidml.plots import benchmark as plots
from pidml.spec import JobSpec

_log = logging.getLogger(__name__)
NO_NSIGMA = "the table has neither nσ columns nor what is needed to calibrate them"

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def run_benchmark(prepared: PreparedDataset, train_dirs: Sequence[Path], job: JobSpec, out_dir: Path) -> dict[str, Any]:
    """Judge trained networks on the test sample; write ``metrics.json``, ``metrics.csv`` and plots.

    Args:
        prepared: labelled data.
        train_dirs: outputs of Train: one with six outputs, or several with some species each.
        job: its sections ``evaluation`` and ``thresholds`` and ``seed`` are used.
        out_dir: existing directory to write into.

    Returns:
        The content of ``metrics.json``.

    Raises:
        NoLabels: the data are experimental.
        MissingColumn: the test sample has no transverse momentum.
        NoTracks: the test sample is empty.
        CorruptFile: a training output lacks its certainties of the validation sample.
    """
    from pidml.training import load_classifier

    folders = [Path(folder) for folder in train_dirs]
    classifier = load_classifier(folders)
    points = read_working_points(folders, prepared, job.thresholds)
    return judge(prepared, classifier.predict, points, job, out_dir)


def judge(
    prepared: PreparedDataset,
    predict: Predict,
    thresholds: NDArray[np.float64] | WorkingPoints,
    job: JobSpec,
    out_dir: Path,
    *,
    draw: bool = True,
) -> dict[str, Any]:
    """Judge any classifier as :func:`run_benchmark` does a trained network; the same files, answer and errors.

    Args:
        prepared: labelled data.
        predict: raw features (tracks, features), NaN for missing → certainties (tracks, 6) in [0, 1].
        thresholds: per target species, shape (6,), or per bin too; a track is accepted when certainty ≥ threshold.
        job: its sections ``evaluation`` and ``thresholds``, ``preparation.cuts`` and ``seed`` are used.
        out_dir: existing directory to write into.
        draw: whether plots are made.
    """
    out_dir = Path(out_dir)
    test = labelled_test(prepared)
    edges = job.evaluation.pt_edges
    sample = Sample.of(test, prepared.features)
    _log.info("scoring %d test tracks", len(test))
    methods = [_network(test, predict, thresholds, out_dir)]
    absent: dict[str, str] = {}
    for name, make in (("nsigma", _traditional), ("bayes", _bayesian), ("optimum", _optimum)):
        made = make(prepared, test, job, out_dir)
        if isinstance(made, Method):
            methods.append(made)
        else:
            absent[name] = made
    grouped = groups(sample, edges)
    results = [count(sample, method, edges, grouped) for method in methods]
    flat = tables.table(results)
    record = tables.metrics_record(sample, results, flat, absent)
    record["fraction_of_optimum"] = None
    if "optimum" not in absent:
        record["fraction_of_optimum"] = tables.fractions(_paired(sample, methods[0], methods[-1], edges), job.seed)
    record["threshold_choice"] = thresholds.record() if isinstance(thresholds, WorkingPoints) else None
    record["notices"] = thresholds.notices() if isinstance(thresholds, WorkingPoints) else []
    record["notices"] += [_reasons(method.undefined) for method in methods if method.undefined]
    record = tables.plain(record)
    record["plots"] = plots.draw_all(results, record, out_dir) if draw else []
    with atomic_file(out_dir / "metrics.csv") as temporary:
        flat.to_csv(temporary, index=False, float_format="%.7g")
    write_json(out_dir / "metrics.json", record)
    for line in summary_lines(record):
        _log.info("%s", line)
    return dict(record)


def _network(test: Split, predict: Predict, thresholds: NDArray[np.float64] | WorkingPoints, scratch: Path) -> Method:
    scores = score_table(test, lambda rows: predict(np.asarray(test.features[rows])), scratch)
    if isinstance(thresholds, WorkingPoints):
        text = f"trained network, thresholds of {thresholds.rule.rule} on the validation sample"
        return _cut("network", "network", text, test, scores, thresholds)
    return Method("network", "network", "trained network, thresholds given", scores, thresholds)


def _cut(name: str, label: str, text: str, test: Split, scores: Scores, points: WorkingPoints) -> Method:
    """Return a method with thresholds that may depend on transverse momentum."""
    at = (lambda rows: points.at(np.asarray(test.column("fPt")[rows]))) if points.bins else None
    return Method(name, label, text, scores, points.thresholds, at=at)


def _traditional(prepared: PreparedDataset, test: Split, job: JobSpec, scratch: Path) -> Method | str:
    """Return the traditional selection, or why it cannot be had."""
    selection = nsigma_selection(prepared, job.evaluation)
    if selection is None:
        return NO_NSIGMA
    undefined = selection.undefined
    if len(undefined) == len(species.TARGETS):
        return _reasons(undefined)
    if undefined:
        _log.warning("%s", _reasons(undefined))
    scores = score_table(test, lambda rows: -selection.deviations(test, rows), scratch)
    # Thresholds accept "≥", nσ accepts "<".
    limit = float(np.nextafter(np.float32(-selection.limit), np.float32(0)))
    thresholds = np.full(len(species.TARGETS), limit)
    label = rf"$|n\sigma| < {selection.limit:g}$"
    return Method("nsigma", label, selection.description, scores, thresholds, probabilistic=False,
                  undefined=undefined)  # fmt: skip


def _bayesian(prepared: PreparedDataset, test: Split, job: JobSpec, scratch: Path) -> Method | str:
    """Return the Bayesian approach, or why it cannot be had."""
    made = bayesian(prepared, job.evaluation.pt_edges)
    if made is None:
        selection = nsigma_selection(prepared, job.evaluation)
        return _reasons(selection.undefined) if selection and selection.undefined else NO_NSIGMA
    validation = prepared.split("validation")
    on_validation = score_table(validation, lambda rows: made.predict(validation, rows), scratch)
    scores = score_table(test, lambda rows: made.predict(test, rows), scratch)
    text = f"{made.description}; thresholds of {job.thresholds.rule} on the validation sample"
    return _cut("bayes", "Bayesian", text, test, scores, chosen(job.thresholds, validation, on_validation))


def _optimum(prepared: PreparedDataset, test: Split, job: JobSpec, scratch: Path) -> Method | str:
    """Return the exact optimum, or why it is not known."""
    exact, why_not = exact_posterior(prepared, primaries_only=job.preparation.cuts.primaries_only)
    if exact is None:
        return why_not
    _log.info("computing the exact posterior of validation and test tracks")
    validation = prepared.split("validation")
    on_validation = score_table(validation, lambda rows: exact.predict(np.asarray(validation.features[rows])), scratch)
    scores = score_table(test, lambda rows: exact.predict(np.asarray(test.features[rows])), scratch)
    text = "exact posterior of the simulation for the networks' inputs"
    text += f", thresholds of {job.thresholds.rule} on the validation sample"
    return _cut("optimum", "exact optimum", text, test, scores, chosen(job.thresholds, validation, on_validation))


def _reasons(undefined: Mapping[str, str]) -> str:
    """Say of which species nσ is not known, and why."""
    shared: dict[str, list[str]] = {}
    for name, reason in undefined.items():
        shared.setdefault(reason, []).append(name)
    return "nσ is undefined for " + "; ".join(f"{', '.join(names)}: {reason}" for reason, names in shared.items())


def read_thresholds(train_dirs: Sequence[Path]) -> NDArray[np.float64]:
    """Return the threshold per target species from the ``thresholds.json`` of training outputs, shape (6,).

    Raises:
        CorruptFile: a file cannot be read or a species has no threshold.
    """
    found: dict[str, float] = {}
    for folder in train_dirs:
        path = Path(folder) / "thresholds.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found.update({name: float(value) for name, value in content.items() if name in species.TARGET_NAMES})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise CorruptFile(f"{path}: no thresholds: {error}", "remove the directory and rerun Train") from error
    if lacking := [name for name in species.TARGET_NAMES if name not in found]:
        raise CorruptFile(f"no threshold for {', '.join(lacking)} in {', '.join(map(str, train_dirs))}", "rerun Train")
    return np.array([found[name] for name in species.TARGET_NAMES])


def _paired(sample: Sample, first: Method, second: Method, edges: Sequence[float]) -> PairedCounts:
    paired = PairedCounts(edges)
    for rows in sample.chunks():
        paired.add(sample.pdg[rows], sample.pt[rows], first.selected(rows), second.selected(rows))
    return paired


def summary_lines(record: dict[str, Any]) -> list[str]:
    """Return one line of text per species, for logs and terminals, from the content of ``metrics.json``."""
    lines = []
    for name in species.TARGET_NAMES:
        own = record["species"][name]["network"]["all"]["overall"]
        text = [f"{name:<10}"]
        text += [f"{key} {_shown(own[key])}" for key in ("f1", "purity", "efficiency", "auc")]
        for other in ("nsigma", "bayes", "optimum"):
            if other in record["methods"]:
                text.append(f"{other} f1 {_shown(record['species'][name][other]['all']['overall']['f1'])}")
        if record["fraction_of_optimum"]:
            text.append(f"fraction of optimum {_shown(record['fraction_of_optimum'][name]['value'])}")
        lines.append("  ".join(text))
    return lines


def _shown(value: float | None) -> str:
    return "   –  " if value is None else f"{value:.4f}"
