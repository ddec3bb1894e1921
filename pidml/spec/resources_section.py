"""The section about what the jobs of each step ask of a batch system; it changes no output."""

from __future__ import annotations

from pidml.spec.base import Real, Section, setting


class StepResources(Section):
    """What one job of a step asks for."""

    cores: int = setting(1, "processor cores of one job", ge=1, le=1024)
    memory: Real = setting(2.0, "memory of one job; doubled after a job was killed for it", "GB", gt=0, le=4096)
    disk: Real = setting(10.0, "scratch space of one job (HTCondor)", "GB", gt=0, le=100_000)
    time: Real = setting(2.0, "wall-clock time of one job; doubled after a job ran out of it", "h", gt=0, le=2000)
    gpus: int = setting(0, "GPUs of one job", ge=0, le=64)


class Resources(Section):
    """What jobs on a batch system ask for, per step. Tasks must not name this section in what they read."""

    download: StepResources = StepResources(memory=2.0, disk=20.0, time=4.0)
    produce: StepResources = StepResources(memory=4.0, disk=40.0, time=4.0)
    train: StepResources = StepResources(cores=4, memory=8.0, disk=20.0, time=12.0)
    apply: StepResources = StepResources(cores=2, memory=4.0, disk=40.0, time=4.0)
