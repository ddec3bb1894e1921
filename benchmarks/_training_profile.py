"""What bounds a training: where the time of an epoch's steps goes, as torch.profiler sees it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from pidml.data.prepared import PreparedDataset
from pidml.errors import PidmlError
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.training import train

#: Operators that move data and compute nothing.
_MOVING = ("aten::copy_", "aten::clone", "aten::index", "aten::gather", "aten::cat", "aten::to", "aten::_to_copy",
           "aten::contiguous", "aten::_local_scalar_dense")  # fmt: skip
#: The first warms up, the last is looked at.
_EPOCHS = 2


def shares(prepared: PreparedDataset, job: JobSpec) -> dict[str, float]:
    """Train for two epochs and return what the time of the second one's steps is made of, as parts of it.

    On a card: ``kernels`` and ``movement`` (copies to, from and within it, filling) are what it is busy with, ``idle``
    is when it waits for Python and for launches. On the processor: ``operators`` compute, ``movement`` copies and
    gathers, ``outside`` is Python, Lightning, autograd's bookkeeping, and waiting for samples. Watching costs time of
    its own, nearly all of it in ``idle`` or ``outside``.

    Args:
        prepared: the data; some ten thousand tracks will do.
        job: what is trained; ``training.accelerator`` says where.

    Raises:
        PidmlError: the profiler saw no steps of an optimiser.
    """
    settings = {"max_epochs": _EPOCHS, "patience": _EPOCHS}
    short = job.model_copy(update={"training": job.training.model_copy(update=settings)})
    on_card = torch.cuda.is_available() and job.training.accelerator != "cpu"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_card else [])
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        out = Path(folder) / "out"
        out.mkdir()
        with profile(activities=activities) as watched:
            train(prepared, short, TARGET_NAMES, Path(folder) / "work", out)
    events = watched.events() or []
    on_host = [each for each in events if each.device_type == DeviceType.CPU]
    steps = sorted(e.time_range.end for e in on_host if e.name.startswith("Optimizer.step#"))
    if len(steps) < 2 * _EPOCHS:
        raise PidmlError(f"the profiler saw {len(steps)} steps of an optimiser", "profile more tracks")
    begin, end = steps[-(len(steps) // _EPOCHS)], steps[-1]
    if on_card:
        names, moving = ("kernels", "idle"), ("Memcpy", "Memset")
        own = [(e, e.time_range.elapsed_us()) for e in events if e.device_type == DeviceType.CUDA and not _annotates(e)]
    else:
        names, moving = ("operators", "outside"), _MOVING
        own = [(e, e.self_cpu_time_total) for e in on_host if e.name.startswith("aten::")]
    own = [(each, time) for each, time in own if begin <= each.time_range.start < end]
    moved = sum(time for each, time in own if each.name.startswith(moving)) / (end - begin)
    busy = sum(time for _, time in own) / (end - begin)
    return {names[0]: busy - moved, "movement": moved, names[1]: 1 - busy}


def _annotates(event: torch.autograd.profiler_util.FunctionEvent) -> bool:
    """Tell whether an event on a card is no work but the span of something that Python named."""
    return bool(event.is_user_annotation)
