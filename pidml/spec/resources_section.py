"""The section about what the jobs of each step ask of a batch system; it changes no output."""

from __future__ import annotations

from typing import Any

from pidml.spec.base import Real, Section, setting


def _cores(default: int) -> Any:
    return setting(default, "processor cores of one job", ge=1, le=1024)


def _memory(default: float) -> Any:
    return setting(default, "memory of one job; doubled after a job was killed for it", "GB", gt=0, le=4096)


def _disk(default: float) -> Any:
    return setting(default, "scratch space of one job (HTCondor)", "GB", gt=0, le=100_000)


def _time(default: float) -> Any:
    return setting(default, "wall-clock time of one job; doubled after a job ran out of it", "h", gt=0, le=2000)


class StepResources(Section):
    """What one job of a step asks for."""

    cores: int = _cores(1)
    memory: Real = _memory(2.0)
    disk: Real = _disk(20.0)
    time: Real = _time(4.0)
    gpus: int = setting(0, "GPUs of one job", ge=0, le=64)


class ProduceResources(StepResources):
    """What one producer run asks for."""

    memory: Real = _memory(4.0)
    disk: Real = _disk(40.0)


class TrainResources(StepResources):
    """What the training of one network asks for."""

    cores: int = _cores(4)
    memory: Real = _memory(8.0)
    time: Real = _time(12.0)


class Resources(Section):
    """What jobs on a batch system ask for, per step. Tasks must not name this section in what they read."""

    download: StepResources = StepResources()
    produce: ProduceResources = ProduceResources()
    train: TrainResources = TrainResources()
    apply: StepResources = StepResources()
