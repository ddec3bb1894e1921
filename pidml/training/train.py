"""Trains a classifier: fit, calibration, thresholds, and the files that later steps read."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pidml.atomic import explained, write_json, write_text
from pidml.data.prepared import PreparedDataset, rows_of
from pidml.data.taught import Taught
from pidml.errors import TrainingError
from pidml.evaluation.thresholds import best_f1_threshold
from pidml.evaluation.working_points import CERTAINTY_FILE
from pidml.models import Inputs, Network
from pidml.models.base import Derived
from pidml.models.hiding import Hiding
from pidml.models.pieces import pieces
from pidml.models.spread import tell
from pidml.spec import JobSpec
from pidml.training.adaptation import AdaptationSummary, check_experimental
from pidml.training.calibration import Calibration, calibrate
from pidml.training.classifier import save_model
from pidml.training.domains import check_domains
from pidml.training.fit import POOL_ROWS, Fit
from pidml.training.fitters import fitter
from pidml.training.labels import check_labels, class_indices
from pidml.training.memory import out_of_memory
from pidml.training.notices import chance_notices, notices_before
from pidml.training.objective import Objective, certainty
from pidml.training.record import AfterEpoch

logger = logging.getLogger(__name__)

#: Validation tracks that thresholds are chosen on at most: the first ones (the sample's order is random).
_THRESHOLD_TRACKS = 2_000_000


@dataclass(frozen=True)
class TrainingSummary:
    """What came out of a training.

    Attributes:
        species: species identified, in the order of the outputs.
        parameters: trained parameters.
        epochs: epochs trained.
        resumed_epochs: how many of these an earlier, interrupted process had completed.
        best_epoch: the epoch whose weights are kept (smallest validation loss; the last with adaptation), from 0.
        validation_loss: that loss, nats per track.
        tracks_per_second: training tracks per second of training time, validation excluded, median of the epochs.
        training_seconds: time spent in training steps, all epochs, whichever process ran them.
        wall_seconds: time that this process took for everything.
        device: name of the device.
        parts: parts in which each process took its share of a batch; more than 1 after memory ran out.
        calibration: the correction folded into the network's last layer, and the loss before and after.
        thresholds: certainty from which a track is accepted, per species.
        validation_f1: F1 on the validation sample at that threshold.
        adaptation: how alike the domains became, if the network was adapted.
        notices: what a user should know: what was not taught, or not learned.
    """

    species: tuple[str, ...]
    parameters: int
    epochs: int
    resumed_epochs: int
    best_epoch: int
    validation_loss: float
    tracks_per_second: float
    training_seconds: float
    wall_seconds: float
    device: str
    parts: int
    calibration: Calibration
    thresholds: dict[str, float]
    validation_f1: dict[str, float]
    adaptation: AdaptationSummary | None = None
    notices: tuple[str, ...] = ()


@out_of_memory("in a training", "use a machine with more memory, or fewer tracks (preparation.max_tracks)")
def train(
    prepared: PreparedDataset,
    job: JobSpec,
    species: Sequence[str],
    work_dir: Path,
    out_dir: Path,
    *,
    pool_rows: int = POOL_ROWS,
    after_epoch: AfterEpoch | None = None,
    experimental: PreparedDataset | None = None,
    derived: Sequence[Derived] = (),
    memory_bytes: int | None = None,
    resident_bytes: int | None = None,
) -> TrainingSummary:
    """Train one network that identifies ``species`` and write it.

    Args:
        prepared: the data.
        job: model, training and seed are read.
        species: names out of ``species.TARGET_NAMES``; all six for a shared trunk, one for separate networks.
        work_dir: persistent folder for checkpoints: a run that was killed resumes after its last completed epoch
            and gives the same result as one that was not (on a CPU, with the same number of threads).
        out_dir: existing folder; gets ``model.pt``, ``thresholds.json``, ``validation_certainty.npy``, ``history.csv``
            and ``training.json``.
        pool_rows: tracks mixed at a time.
        after_epoch: called with every :class:`~pidml.training.record.Epoch` once its checkpoint is written, and with
            the largest number of epochs; returns whether to stop there.
        experimental: samples without labels to adapt to, prepared with the settings of ``prepared``; needed if
            ``job.adaptation`` says so, and not looked at otherwise.
        derived: further columns that the network computes, one for each name in ``dataset.derive``.
        memory_bytes: main memory that the training may take in all, as far as a batch system limits it. Encoded samples
            take half of what is free, of the GPU's memory or of the machine's, and are streamed where they need more.
        resident_bytes: so much instead, whatever is free. What is trained depends on neither.

    Raises:
        NoLabels: the data has no labels.
        TrainingError: experimental samples are needed and not given, or were prepared otherwise; or ``derived`` is
            not what the job asks for.
        NoTracks: a sample is empty.
        DomainsDiffer: what is missing tells experimental from simulated tracks, see
            :func:`pidml.training.domains.check_domains`.
        SpeciesAbsent: a species has no example, or nothing else has one.
        Interrupted: ``after_epoch`` asked for a stop; a later call goes on from there.
        Diverged: the loss became NaN or infinite; the last good checkpoint stays in ``work_dir``.
        OutOfMemory: memory does not suffice, however small the parts of a batch are.
        WarmStartError: the weights to start from do not fit.
        ToolMissing: the library that fits this architecture is not installed, or the network shall be compiled and
            there is no compiler.
    """
    started = time.perf_counter()
    check_labels(prepared, species)
    check_experimental(job, prepared, experimental)
    _check_derived(job, derived)
    taught = Taught.by(prepared.survey("train"))
    notices = notices_before(taught, job)
    if job.adaptation.active and experimental is not None:
        notices += check_domains(prepared, experimental, job.training.undersample)
    _warn(notices)
    fit = fitter(job.model.architecture)
    result = fit(
        prepared, job, species, work_dir, pool_rows=pool_rows, after_epoch=after_epoch, experimental=experimental,
        derived=derived, memory_bytes=memory_bytes, resident_bytes=resident_bytes,
    )  # fmt: skip
    tell(result.network.spread)
    result.network.settle(taught)
    with explained(out_dir):
        calibration, certainties = _calibrated(prepared, result.network, job.training.objective, species, taught)
        classes = class_indices(np.asarray(prepared.split("validation").pdg[: len(certainties)]), species)
        thresholds, f1 = _best_f1(classes, certainties, species)
        _warn(chance := list(chance_notices(classes, certainties, species)))
        notices += chance
        np.save(out_dir / CERTAINTY_FILE, certainties)
        objective, scaling = job.training.objective, prepared.scaling
        save_model(out_dir, result.network, job.model, objective, species, scaling, taught, derived, notices)
        write_json(out_dir / "thresholds.json", thresholds)
        write_text(out_dir / "history.csv", result.record.csv())
        adaptation = _adaptation_summary(result, job, experimental)
        wall = time.perf_counter() - started
        summary = _summary(result, species, calibration, thresholds, f1, adaptation, notices, wall)
        write_json(out_dir / "training.json", asdict(summary))
    return summary


def _warn(notices: Sequence[str]) -> None:
    for line in notices:
        logger.warning("%s", line)


def _check_derived(job: JobSpec, derived: Sequence[Derived]) -> None:
    if len(derived) != len(job.dataset.derive):
        raise TrainingError(
            f"dataset.derive names {len(job.dataset.derive)} kinds of derived features, given are {len(derived)}",
            "learn them first: `law run TrainTPCResponse`, load_response() in pidml.response",
        )


@torch.no_grad()
def _calibrated(
    prepared: PreparedDataset, network: Network, objective: Objective, species: Sequence[str], taught: Taught
) -> tuple[Calibration, NDArray[np.float32]]:
    """Calibrate the network in place; return the correction, and the certainties of the tracks it was fitted on."""
    validation = prepared.split("validation")
    rows = slice(0, _THRESHOLD_TRACKS)
    scaling = Inputs.of(prepared.scaling)
    standardised = torch.from_numpy(prepared.scaling.apply(rows_of(validation.features, rows)))
    standardised = Hiding(taught, scaling.mean, scaling.std)(standardised)
    logits = torch.cat([network(part) for (part,) in pieces(network.evaluation_batch, standardised)])
    classes = class_indices(rows_of(validation.pdg, rows), species)
    with torch.enable_grad():
        calibration = calibrate(objective, logits, torch.from_numpy(classes))
    factor, offset = torch.tensor(calibration.factor), torch.tensor(calibration.offset)
    network.rescale_output(factor, offset)
    return calibration, certainty(objective, logits * factor + offset).float().numpy()


def _best_f1(
    classes: NDArray[np.int64], certainties: NDArray[np.float32], species: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return per species the threshold of the largest F1, and that F1."""
    chosen = {name: best_f1_threshold(classes == index, certainties[:, index]) for index, name in enumerate(species)}
    return {name: threshold for name, (threshold, _) in chosen.items()}, {name: f1 for name, (_, f1) in chosen.items()}


def _summary(
    result: Fit, species: Sequence[str], calibration: Calibration, thresholds: dict[str, float], f1: dict[str, float],
    adaptation: AdaptationSummary | None, notices: Sequence[str], wall_seconds: float,
) -> TrainingSummary:  # fmt: skip
    rows = result.record.rows
    return TrainingSummary(
        species=tuple(species),
        parameters=result.network.parameter_count,
        epochs=len(rows),
        resumed_epochs=result.resumed_epochs,
        best_epoch=result.record.best_epoch,
        validation_loss=result.record.best_loss,
        tracks_per_second=float(np.median([row.tracks_per_second for row in rows])),
        training_seconds=sum(row.seconds for row in rows),
        wall_seconds=wall_seconds,
        device=result.device,
        parts=result.record.split,
        calibration=calibration,
        thresholds=thresholds,
        validation_f1=f1,
        adaptation=adaptation,
        notices=tuple(notices),
    )


def _adaptation_summary(result: Fit, job: JobSpec, experimental: PreparedDataset | None) -> AdaptationSummary | None:
    kept = next(row for row in result.record.rows if row.epoch == result.record.best_epoch)
    if experimental is None or kept.domain_loss is None or kept.domain_accuracy is None:
        return None
    tracks = len(experimental.split("train"))
    return AdaptationSummary(job.adaptation.method, tracks, kept.domain_loss, kept.domain_accuracy)
