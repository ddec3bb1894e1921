"""Learns the TPC response of a job and writes it, with metrics and figures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pidml.atomic import explained, write_json, write_text
from pidml.data.prepared import PreparedDataset
from pidml.response.files import save_response
from pidml.response.fit import fit_response
from pidml.response.network import TpcResponse
from pidml.response.quality import checked, metrics
from pidml.spec import JobSpec


@dataclass(frozen=True)
class ResponseSummary:
    """What came out.

    Attributes:
        species: hypotheses that were learned.
        fitted_tracks, calibration_tracks, check_tracks: tracks used for fit, calibration and figures.
        best_epoch: the epoch that is kept, from 0.
        bias, width: of the pulls of the check tracks, per species; absent where there are too few.
        seconds: time in all.
    """

    species: tuple[str, ...]
    fitted_tracks: int
    calibration_tracks: int
    check_tracks: int
    best_epoch: int
    bias: dict[str, float]
    width: dict[str, float]
    seconds: float


def train_tpc_response(prepared: PreparedDataset, job: JobSpec, out_dir: Path) -> ResponseSummary:
    """Learn the TPC response on the training sample and write ``response.pt``, metrics, history and figures.

    Args:
        prepared: only its training sample is read.
        job: ``response`` and ``seed`` are read.
        out_dir: existing folder; gets ``response.pt``, ``response_metrics.json``, ``response_history.csv`` and plots.

    Raises:
        NoLabels, NoTracks, SpeciesAbsent, MissingColumn, Diverged: see
            :func:`pidml.response.fit.fit_response`.
    """
    from pidml.plots import response as plots

    started = time.perf_counter()
    fit = fit_response(prepared, job.response, job.seed)
    tracks = checked(fit)
    with explained(out_dir):
        save_response(out_dir, fit.response, prepared.scaling)
        history = pd.DataFrame(fit.history, columns=["train_loss", "held_out_loss"])
        write_text(out_dir / "response_history.csv", history.to_csv(index_label="epoch"))
        record = metrics(tracks, fit.examples)
        figures = plots.draw_all(fit, tracks, record, out_dir)
        counts = {"fitted": fit.fitted, "calibration": fit.calibrated, "check": len(fit.check)}
        facts = {"tracks": counts, "inputs": _input_names(fit.response), "plots": figures}
        write_json(out_dir / "response_metrics.json", record | facts)
    shown = {name: each["pull"] for name, each in record["species"].items() if each["pull"]}
    return ResponseSummary(
        fit.response.species, fit.fitted, fit.calibrated, len(fit.check), fit.best_epoch,
        {name: pull["bias"] for name, pull in shown.items()}, {name: pull["width"] for name, pull in shown.items()},
        time.perf_counter() - started,
    )  # fmt: skip


def _input_names(response: TpcResponse) -> list[str]:
    return ["ln p", *(["pz/pT"] if response.has_angle else []), *response.extra]
