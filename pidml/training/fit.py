"""Fits one network with Lightning, from the beginning or from the last completed epoch."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy

from pidml.data.prepared import PreparedDataset, rows_of
from pidml.identity import digest
from pidml.models import Inputs, Network, build
from pidml.models.base import Derived
from pidml.models.spread import INPUT_TRACKS, spread_of
from pidml.response.files import state_digest
from pidml.spec import JobSpec
from pidml.training.adaptation import initial_adversary
from pidml.training.batches import Source
from pidml.training.memory import Limit, with_smaller_parts
from pidml.training.module import TrainingModule
from pidml.training.objective import output_count
from pidml.training.paired_batches import with_experimental
from pidml.training.plan import Plan, Share
from pidml.training.processes import Environment, Member, companions, joined
from pidml.training.record import CHECKPOINT, AfterEpoch, Record, Recorder
from pidml.training.room import rooms
from pidml.training.undersampling import Undersampling
from pidml.training.warm_start import description, start_from
from pidml.training.weights import group_counts, sample_weights

logger = logging.getLogger(__name__)

#: Tracks mixed at a time: where a sample is streamed, so many are in memory twice.
POOL_ROWS = 2_000_000
#: Lightning and PyTorch call what PyTorch has deprecated; it is not ours to change.
_FOREIGN_WARNINGS = (r".*isinstance\(treespec, LeafSpec\).*", r".*torch\.jit\.script_method.* is deprecated.*")


@dataclass(frozen=True)
class Fit:
    """A fitted network with the weights of its best epoch, and how it came about."""

    network: Network
    record: Record
    device: str
    resumed_epochs: int


@dataclass(frozen=True)
class Request:
    """What is to be fitted; the arguments of :func:`fit`, as every process that takes part gets them."""

    prepared: PreparedDataset
    job: JobSpec
    species: tuple[str, ...]
    work_dir: Path
    pool_rows: int
    experimental: PreparedDataset | None = None
    derived: tuple[Derived, ...] = ()
    memory_bytes: int | None = None
    resident_bytes: int | None = None

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint of the last epoch lies."""
        return self.work_dir / CHECKPOINT


def fit(
    prepared: PreparedDataset,
    job: JobSpec,
    species: Sequence[str],
    work_dir: Path,
    *,
    pool_rows: int = POOL_ROWS,
    after_epoch: AfterEpoch | None = None,
    experimental: PreparedDataset | None = None,
    derived: Sequence[Derived] = (),
    memory_bytes: int | None = None,
    resident_bytes: int | None = None,
) -> Fit:
    """Fit a network that identifies ``species``.

    Args:
        prepared: training and validation samples.
        job: model, training and seed are read.
        species: one output each.
        work_dir: persistent folder of this fit; a checkpoint there of the same fit is resumed.
        pool_rows: tracks mixed at a time.
        after_epoch: told of every epoch once its checkpoint is written; may ask for a stop.
        experimental: samples to adapt to, where ``job.adaptation`` asks for it.
        derived: further columns that the network computes.
        memory_bytes: main memory that the training may take in all, as far as a batch system limits it.
        resident_bytes: encoded samples up to this size in all are held in memory, whatever is free. The network does
            not depend on it.

    Raises:
        Interrupted: ``after_epoch`` asked for a stop.
        Diverged: the loss became NaN or infinite.
        OutOfMemory: memory does not suffice, however small the parts of a batch are.
        WarmStartError: the weights to start from do not fit.
        ToolMissing: the network shall be compiled, and there is no compiler.
    """
    request = Request(
        prepared, job, tuple(species), work_dir, pool_rows, experimental, tuple(derived), memory_bytes, resident_bytes
    )
    work_dir.mkdir(parents=True, exist_ok=True)
    network, record = initial_network(prepared, job, species, derived), recorded(request)
    resumed = len(record.rows)
    if not record.finished:
        with_smaller_parts(lambda split: _attempt(request, split, after_epoch), record.split, _limit(request))
        record = recorded(request)
    network.load_state_dict(record.best_state)
    return Fit(network.eval(), record, record.device, resumed)


def initial_network(
    prepared: PreparedDataset, job: JobSpec, species: Sequence[str], derived: Sequence[Derived] = ()
) -> Network:
    """Return the network before training; its weights depend on the job's seed and the warm start alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        inputs = Inputs.of(prepared.scaling, derived, spread_of(prepared))
        network = build(job.model, inputs, output_count(job.training.objective, len(species)))
    start_from(network, job, species, prepared.features)
    show_inputs(network, prepared)
    return network


def show_inputs(network: Network, prepared: PreparedDataset) -> None:
    """Let a network learn how to treat its inputs from the first training tracks."""
    sample = rows_of(prepared.split("train").features, slice(0, INPUT_TRACKS))
    network.learn_inputs(torch.from_numpy(prepared.scaling.apply(sample)))


def fingerprint(
    prepared: PreparedDataset, job: JobSpec, species: Sequence[str], experimental: PreparedDataset | None = None,
    derived: Sequence[Derived] = (),
) -> str:  # fmt: skip
    """Return the identity of a fit: settings, seed, species, the data's description and derived columns."""
    return digest(
        {
            "model": job.model.identity(),
            "training": job.identity("training"),
            "seed": job.seed,
            "species": list(species),
            "data": prepared.meta,
            "scaling": prepared.scaling.as_o2(),
            "derived": [state_digest(each.state()) for each in derived],
            "adaptation": job.adaptation.identity(),
            "experimental": experimental.meta if experimental and job.adaptation.active else None,
        },
        length=32,
    )


def recorded(request: Request) -> Record:
    """Return the record in a checkpoint of this very fit, else an empty one."""
    checkpoint = request.checkpoint
    given = request.species, request.experimental, request.derived
    fresh = Record(fingerprint(request.prepared, request.job, *given))
    if not checkpoint.is_file():
        return fresh
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        record = Record.of(content["callbacks"][Recorder.__qualname__])
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        logger.warning("%s cannot be read (%s): training starts afresh", checkpoint, error)
        return fresh
    if record.fingerprint != fresh.fingerprint:
        logger.info("%s belongs to other settings or data: training starts afresh", checkpoint)
        return fresh
    return record


def _limit(request: Request) -> Limit:
    """Return into how many parts a process may take its share of a batch."""
    training, train = request.job.training, request.prepared.split("train")

    def most() -> int:
        rows = len(train)
        if training.undersample:
            counts = group_counts(train, request.species, request.prepared.features).sum(axis=0)
            rows = Undersampling(counts[None], request.job.seed).rows
        return max(1, min(rows, training.batch_size) // training.devices)

    if request.job.adaptation.active:
        # The discriminator normalises by, and weighs, the tracks that it sees at once: parts would be another training.
        return Limit(lambda: 1, "lower training.batch_size: with domain adaptation a batch is taken as a whole")
    return Limit(most)


def _attempt(request: Request, split: int, after_epoch: AfterEpoch | None) -> None:
    """Fit in as many processes as the job says, from the last completed epoch on."""
    devices = request.job.training.devices
    if devices == 1:
        _run(request, split, None, after_epoch)
        return
    with companions(devices, partial(_take_part, request, split)) as member:
        _take_part(request, split, member, after_epoch)


def _take_part(request: Request, split: int, member: Member, after_epoch: AfterEpoch | None = None) -> None:
    with joined(member, "nccl" if torch.cuda.is_available() and request.job.training.accelerator != "cpu" else "gloo"):
        _run(request, split, member, after_epoch)


def _trainer(job: JobSpec, work_dir: Path, split: int, member: Member | None) -> pl.Trainer:
    spec = job.training
    on_terminal = sys.stderr.isatty()
    plugins: list[Any] = [Environment(member) if member else LightningEnvironment()]
    on_cpu = spec.accelerator == "cpu" or not torch.cuda.is_available()
    if half := spec.precision == "16-mixed" and on_cpu:  # Lightning itself would silently take bf16
        plugins.append(MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu")))
    with _quiet():
        return pl.Trainer(
            max_epochs=spec.max_epochs,
            accelerator=spec.accelerator,
            devices=spec.devices,
            # Buffers are each process's own: sums of its losses, and constants.
            strategy=DDPStrategy(forward_sync_buffers=False) if member else "auto",
            accumulate_grad_batches=split,
            precision=None if half else spec.precision,
            gradient_clip_val=spec.gradient_clip or None,
            logger=False,  # the history is written by the recorder, once per epoch, and survives a resume
            enable_checkpointing=False,  # so is the checkpoint, atomically
            enable_model_summary=False,
            enable_progress_bar=on_terminal,
            callbacks=[TQDMProgressBar(refresh_rate=50)] if on_terminal else [],
            plugins=plugins,  # inside a batch job, too, this process alone starts what it needs
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=work_dir,
        )


def _run(request: Request, split: int, member: Member | None, after_epoch: AfterEpoch | None) -> None:
    """Fit in this process, alone or as a member of several."""
    prepared, job, species = request.prepared, request.job, request.species
    network, record = initial_network(prepared, job, species, request.derived), recorded(request)
    record.split = split
    trainer = _trainer(job, request.work_dir, split, member)
    record.device = _device_name(trainer)
    if record.rows:
        logger.info("resuming after epoch %d of %s", record.rows[-1].epoch, request.checkpoint)
    encoder = copy.deepcopy(network)  # stays where the data are read while the network is on its device
    share = Share(member.rank, member.world, split) if member else Share(split=split)
    places = rooms(trainer.strategy.root_device, share, request.memory_bytes, request.resident_bytes)
    weights = sample_weights(prepared, job.training, species)
    source = Source(prepared, species, encoder.encode, places, request.pool_rows, prepared.scaling, weights)
    plan = Plan(job.training.batch_size, job.seed, lambda: trainer.current_epoch, job.training.undersample, share)
    batches, validation = source.batches("train", plan), source.batches("validation", None, share.whole)
    steps, batch_rows = plan.batches(batches.rows), min(batches.rows, plan.batch_size)
    loaders: tuple[Any, Any] = batches, validation
    adversary = None
    if job.adaptation.active:
        assert request.experimental is not None
        others = replace(source, prepared=request.experimental, weights=None)
        loaders = with_experimental(job.adaptation, batches, validation, others, plan)
        adversary = initial_adversary(job, network, job.training.max_epochs * steps)
    given = description(job.model.identity(), job.training.objective, species, prepared.features, job.dataset.derive)
    recorder = Recorder(record, request.work_dir, job.seed, steps * batch_rows, after_epoch, given)
    trainer.callbacks.append(recorder)  # type: ignore[attr-defined]
    with _quiet():
        trainer.fit(
            TrainingModule(network, job.training, steps, batch_rows, share.world * share.split, adversary),
            train_dataloaders=loaders[0],
            val_dataloaders=loaders[1],
            ckpt_path=request.checkpoint if record.rows else None,
            weights_only=True,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advertisements and remarks on its own inner life out of the log."""
    names = ("lightning.pytorch", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        for message in _FOREIGN_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _device_name(trainer: pl.Trainer) -> str:
    device: Any = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)
