"""The steps of a job in the order in which they give feedback."""

from __future__ import annotations

from typing import Any

from tasks.benchmark import Benchmark
from tasks.download import DownloadAOD
from tasks.explain import ExplainModel
from tasks.explore import ExploreData
from tasks.export import ExportModel
from tasks.fetch_job import FetchJob
from tasks.framework import JobTask, Step
from tasks.prepare import PrepareDataset
from tasks.produce import ProduceTracks
from tasks.replicas import MeasureSpread, TrainReplicas
from tasks.report import Report
from tasks.sources import OfFiles, sources_of
from tasks.tpc_response import TrainTPCResponse
from tasks.train import Train

STEPS: tuple[type[Step], ...] = (
    FetchJob,
    DownloadAOD,
    ProduceTracks,
    PrepareDataset,
    ExploreData,
    Train,
    Benchmark,
    ExportModel,
    Report,
)
#: Steps that a job owes only if it says so, and the step before which they come then.
_ON_REQUEST: tuple[tuple[type[Step], type[Step]], ...] = (
    (TrainTPCResponse, Train),
    (ExplainModel, Report),
    (TrainReplicas, Report),
    (MeasureSpread, Report),
)
BY_NAME: dict[str, type[Step]] = {step.__name__: step for step in (*STEPS, *(each for each, _ in _ON_REQUEST))}


def owed_steps(task: JobTask) -> tuple[type[Step], ...]:
    """Return the steps that a task's job owes, in the order in which they give feedback."""
    owed = list(STEPS)
    for step, following in _ON_REQUEST:
        if step.asked_for(task.spec):
            owed.insert(owed.index(following), step)
    return tuple(owed)


def branches_of(step: Step) -> list[Step]:
    """Return the tasks that do a step's work: the branches of a workflow, or the step itself."""
    branch_map: dict[int, Any] | None = getattr(step, "branch_map", None)
    return [step] if branch_map is None else [type(step).req(step, branch=branch) for branch in branch_map]


def others_of(step: Step) -> list[Step]:
    """Return the same step about the job's other files, if it has any."""
    if not isinstance(step, OfFiles):
        return []
    return [type(step).req(step, source=source) for source in sources_of(step) if source != step.source]


def outputs_of(task: JobTask) -> dict[str, list[str]]:
    """Return the addresses of a job's outputs, of steps on request too: step name → digests of its branches.

    Steps that have no branch in this job, as TrainReplicas without replicas, are left out.
    """
    steps = {name: cls.req(task) for name, cls in BY_NAME.items()}
    found = {
        name: [part.digest for about in (step, *others_of(step)) for part in branches_of(about)]
        for name, step in steps.items()
    }
    return {name: digests for name, digests in found.items() if digests}
