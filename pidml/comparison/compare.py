"""Compares trained models on the same test tracks: tables, plots, one report."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidml.atomic import atomic_file, write_json
from pidml.comparison.contestants import Contestant, Entrant, entrants
from pidml.comparison.cost import BATCHED, cost
from pidml.comparison.settings import differing, notices
from pidml.errors import BundleError
from pidml.evaluation import tables
from pidml.evaluation.counts import TARGET_PDG
from pidml.evaluation.delong import Placements, auc_difference, auc_error, placements
from pidml.evaluation.intervals import INTERVAL_NAME
from pidml.evaluation.paired import PairedCounts, differences
from pidml.evaluation.results import Method, Result, Sample, count, groups, score_table
from pidml.evaluation.working_points import at_pt
from pidml.export.bundle import Bundle
from pidml.plots import models as plots
from pidml.report.comparison import write_comparison
from pidml.species import TARGET_NAMES

_log = logging.getLogger(__name__)


def compare_models(contestants: Sequence[Contestant], out_dir: Path) -> dict[str, Any]:
    """Judge models on the first one's test tracks; write tables, plots and ``comparison.html``.

    Certainties and thresholds are those of the exported bundles. Bins and seed of the bootstrap are the first job's.

    Args:
        contestants: two to :data:`pidml.plots.models.MAX_MODELS` models.
        out_dir: existing directory to write into.

    Returns:
        The content of ``comparison.json``.

    Raises:
        UnfairComparison, NoLabels, MissingColumn, NoTracks: see :func:`pidml.comparison.contestants.entrants`.
        BundleError, CorruptFile: an output of a job is damaged.
    """
    out_dir = Path(out_dir)
    first = contestants[0]
    edges, seed = first.job.evaluation.pt_edges, first.job.seed
    judged_on = entrants(contestants)
    sample = Sample.of(judged_on[0].split, first.prepared.features)
    methods, models = [], []
    for contestant, entrant in zip(contestants, judged_on, strict=True):
        _log.info("scoring %d test tracks with %s", len(sample.pdg), contestant.name)
        bundle = _bundle(contestant)
        methods.append(_method(contestant, bundle, entrant, out_dir))
        measured = cost(contestant, bundle, entrant.features(slice(0, BATCHED)))
        models.append(_model_record(contestant, entrant) | {"cost": measured})
    grouped = groups(sample, edges)
    results = [count(sample, method, edges, grouped) for method in methods]
    errors, of_auc = _auc(sample, methods)
    flat = tables.table(results).rename(columns={"method": "model"})
    pairs = pd.DataFrame([*_paired(sample, methods, edges, seed), *of_auc])
    for file, frame in (("metrics", flat), ("differences", pairs)):
        with atomic_file(out_dir / f"comparison_{file}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.7g")
    jobs = [each.job for each in contestants]
    about = {"settings": differing(jobs), "notices": notices(jobs)}
    record = tables.plain(_record(sample, models, results, flat, pairs, errors) | about)
    record["plots"] = plots.draw_all(results, record, out_dir)
    write_json(out_dir / "comparison.json", record)
    write_comparison(out_dir / "comparison.html", record, out_dir)
    return dict(record)


def _bundle(contestant: Contestant) -> Bundle:
    bundle = Bundle.open(contestant.bundle)
    if bundle.features != contestant.prepared.features or bundle.species != TARGET_NAMES:
        raise BundleError(f"{bundle.path}: not a bundle of {contestant.name}'s data", "rerun ExportModel")
    return bundle


def _method(contestant: Contestant, bundle: Bundle, entrant: Entrant, scratch: Path) -> Method:
    scores = score_table(entrant.split, lambda rows: bundle.predict(entrant.features(rows)), scratch)
    thresholds = np.array([bundle.thresholds[name] for name in bundle.species])
    table, pt = bundle.pt_table, entrant.split.column("fPt")
    at = None if table is None else lambda rows: at_pt(thresholds, table, np.asarray(pt[rows]))
    return Method(contestant.name, contestant.name, entrant.reason, scores, thresholds, at=at)


def _model_record(contestant: Contestant, entrant: Entrant) -> dict[str, Any]:
    model = contestant.job.model
    return {
        "name": contestant.name,
        "job": contestant.job.name,
        "architecture": model.architecture,
        "heads": model.heads,
        "thresholds": contestant.job.thresholds.rule,
        "judged_on": entrant.reason,
    }


def _paired(sample: Sample, methods: Sequence[Method], edges: Sequence[float], seed: int) -> list[dict[str, Any]]:
    """Return purity, efficiency and F1 of each model minus those of each model before it."""
    rows = []
    for second, first in itertools.combinations(methods, 2):
        paired = PairedCounts(edges)
        for chunk in sample.chunks():
            paired.add(sample.pdg[chunk], sample.pt[chunk], first.selected(chunk), second.selected(chunk))
        for position, species in enumerate(TARGET_NAMES):
            found = differences(paired.values[position].sum(axis=0), seed)
            rows += [
                {"model": first.name, "reference": second.name, "species": species, "metric": metric} | asdict(each)
                for metric, each in found.items()
            ]
    return rows


def _auc(sample: Sample, methods: Sequence[Method]) -> tuple[dict[tuple[str, str], float], list[dict[str, Any]]]:
    """Return the error of each AUC by model and species, and the differences as :func:`_paired` gives them."""
    errors, rows = {}, []
    for position, species in enumerate(TARGET_NAMES):
        truth = sample.pdg == TARGET_PDG[position]
        placed: dict[str, Placements] = {}
        for method in methods:
            placed[method.name] = placements(truth, np.ascontiguousarray(method.scores[:, position]))
            errors[method.name, species] = auc_error(placed[method.name])
        for reference, model in itertools.combinations(placed, 2):
            value, error = auc_difference(placed[model], placed[reference])
            rows.append({"model": model, "reference": reference, "species": species, "metric": "auc", "value": value,
                         "low": value - error, "high": value + error,
                         "significance": value / error if error else 0.0})  # fmt: skip
    return errors, rows


def _record(
    sample: Sample,
    models: list[dict[str, Any]],
    results: Sequence[Result],
    flat: pd.DataFrame,
    pairs: pd.DataFrame,
    errors: dict[tuple[str, str], float],
) -> dict[str, Any]:
    nested = tables.nested(flat.rename(columns={"model": "method"}))
    for (name, species), error in errors.items():
        nested[species][name]["all"]["overall"]["auc_error"] = error
    for model, result in zip(models, results, strict=True):
        assert result.reliability is not None
        model["calibration_error"] = {
            each: result.reliability.expected_calibration_error(position) for position, each in enumerate(TARGET_NAMES)
        }
    return {
        "format": 2,
        "sample": tables.sample_record(sample),
        "interval": INTERVAL_NAME,
        "denominator": tables.DENOMINATOR,
        "pt_edges": list(results[0].counts.edges),
        "models": models,
        "species": nested,
        "differences": pairs.to_dict("records"),
    }
