"""Fits one network with Lightning, from the beginning or from the last completed epoch."""

from __future__ import annotations

import logging
import pickle
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import TQDMProgressBar

from pidml.data.prepared import PreparedDataset
from pidml.identity import digest
from pidml.models import Inputs, Network, build
from pidml.models.base import Derived
from pidml.response.files import state_digest
from pidml.spec import JobSpec
from pidml.training.adaptation import initial_adversary
from pidml.training.batches import Plan, Source
from pidml.training.module import TrainingModule
from pidml.training.objective import output_count
from pidml.training.paired_batches import with_experimental
from pidml.training.record import CHECKPOINT, AfterEpoch, Record, Recorder

logger = logging.getLogger(__name__)

#: Encoded samples up to this size are held in memory; larger ones are streamed from their memory map.
RESIDENT_BYTES = 4 * 2**30
#: Training tracks that a network may look at to arrange its inputs: the first ones (the sample's order is random).
INPUT_TRACKS = 200_000
#: Tracks mixed at a time when streaming.
POOL_ROWS = 2_000_000
#: Lightning calls something of PyTorch that PyTorch has deprecated; it is not ours to change.
_FOREIGN_WARNING = r".*isinstance\(treespec, LeafSpec\).*"


@dataclass(frozen=True)
class Fit:
    """A fitted network with the weights of its best epoch, and how it came about."""

    network: Network
    record: Record
    device: str
    resumed_epochs: int


def fit(
    prepared: PreparedDataset,
    job: JobSpec,
    species: Sequence[str],
    work_dir: Path,
    *,
    resident_bytes: int = RESIDENT_BYTES,
    pool_rows: int = POOL_ROWS,
    after_epoch: AfterEpoch | None = None,
    experimental: PreparedDataset | None = None,
    derived: Sequence[Derived] = (),
) -> Fit:
    """Fit a network that identifies ``species``.

    Args:
        prepared: training and validation samples.
        job: model, training and seed are read.
        species: one output each.
        work_dir: persistent folder of this fit; a checkpoint there of the same fit is resumed.
        resident_bytes: encoded samples up to this size are held in memory.
        pool_rows: tracks mixed at a time when they are not.
        after_epoch: told of every epoch once its checkpoint is written; may ask for a stop.
        experimental: samples to adapt to, where ``job.adaptation`` asks for it.
        derived: further columns that the network computes.

    Raises:
        Interrupted: ``after_epoch`` asked for a stop.
        Diverged: the loss became NaN or infinite.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    network = initial_network(prepared, job, species, derived)
    record = _recorded(work_dir / CHECKPOINT, fingerprint(prepared, job, species, experimental, derived))
    resumed = len(record.rows)
    trainer = _trainer(job, work_dir)
    if resumed:
        logger.info("resuming after epoch %d of %s", record.rows[-1].epoch, work_dir / CHECKPOINT)
    if not record.finished:
        source = Source(
            prepared, species, network.encode, resident_bytes, pool_rows, trainer.strategy.root_device, prepared.scaling
        )
        _run(trainer, network, record, source, job, work_dir, after_epoch, experimental)
    network.load_state_dict(record.best_state)
    return Fit(network.cpu().eval(), record, _device_name(trainer), resumed)


def initial_network(
    prepared: PreparedDataset, job: JobSpec, species: Sequence[str], derived: Sequence[Derived] = ()
) -> Network:
    """Return the network before training; its weights depend on the job's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        inputs = Inputs.of(prepared.scaling, derived)
        network = build(job.model, inputs, output_count(job.training.objective, len(species)))
    sample = np.asarray(prepared.split("train").features[:INPUT_TRACKS])
    network.learn_inputs(torch.from_numpy(prepared.scaling.apply(sample)))
    return network


def fingerprint(
    prepared: PreparedDataset, job: JobSpec, species: Sequence[str], experimental: PreparedDataset | None = None,
    derived: Sequence[Derived] = (),
) -> str:  # fmt: skip
    """Return the identity of a fit: settings, seed, species, the data's description and derived columns."""
    return digest(
        {
            "model": job.model.identity(),
            "training": job.training.identity(),
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


def _recorded(checkpoint: Path, identity: str) -> Record:
    """Return the record in a checkpoint of this very fit, else an empty one."""
    fresh = Record(identity)
    if not checkpoint.is_file():
        return fresh
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        record = Record.of(content["callbacks"][Recorder.__qualname__])
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        logger.warning("%s cannot be read (%s): training starts afresh", checkpoint, error)
        return fresh
    if record.fingerprint != identity:
        logger.info("%s belongs to other settings or data: training starts afresh", checkpoint)
        return fresh
    return record


def _trainer(job: JobSpec, work_dir: Path) -> pl.Trainer:
    spec = job.training
    on_terminal = sys.stderr.isatty()
    with _quiet():
        return pl.Trainer(
            max_epochs=spec.max_epochs,
            accelerator=spec.accelerator,
            devices=spec.devices,
            strategy="auto" if spec.devices == 1 else "ddp_spawn",
            precision=spec.precision,
            gradient_clip_val=spec.gradient_clip or None,
            logger=False,  # the history is written by the recorder, once per epoch, and survives a resume
            enable_checkpointing=False,  # so is the checkpoint, atomically
            enable_model_summary=False,
            enable_progress_bar=on_terminal,
            callbacks=[TQDMProgressBar(refresh_rate=50)] if on_terminal else [],
            # Inside a batch job, too, this process alone starts what it needs.
            plugins=[LightningEnvironment()],
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=work_dir,
        )


def _run(
    trainer: pl.Trainer, network: Network, record: Record, source: Source, job: JobSpec, work_dir: Path,
    after_epoch: AfterEpoch | None, experimental: PreparedDataset | None,
) -> None:  # fmt: skip
    plan = Plan(
        job.training.batch_size, job.seed, lambda: trainer.current_epoch, job.training.undersample,
        trainer.global_rank, trainer.world_size,
    )  # fmt: skip
    batches, validation = source.batches("train", plan), source.batches("validation", None)
    tracks_per_epoch = min(batches.rows, len(batches) * plan.batch_size * plan.world)
    loaders: tuple[Any, Any] = batches, validation
    adversary = None
    if job.adaptation.active:
        assert experimental is not None
        others = replace(source, prepared=experimental)
        loaders = with_experimental(job.adaptation, batches, validation, others, plan)
        adversary = initial_adversary(job, network, job.training.max_epochs * len(batches))
    module = TrainingModule(network, job.training, len(batches), adversary)
    trainer.callbacks.append(Recorder(record, work_dir, job.seed, tracks_per_epoch, after_epoch))  # type: ignore[attr-defined]
    with _quiet():
        trainer.fit(
            module,
            train_dataloaders=loaders[0],
            val_dataloaders=loaders[1],
            ckpt_path=work_dir / CHECKPOINT if record.rows else None,
            weights_only=True,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advertisements and remarks on its own inner life out of the log."""
    names = ("lightning.pytorch", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_FOREIGN_WARNING)
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
