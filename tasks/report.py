"""Report: one HTML file that says everything about the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.benchmark import Benchmark
from tasks.download import inputs_obtained
from tasks.explain import ExplainModel
from tasks.explore import ExploreData
from tasks.export import ExportModel
from tasks.framework import JobTask
from tasks.prepare import PrepareDataset
from tasks.replicas import MeasureSpread
from tasks.sources import ADAPTATION, DATASET, sources_of
from tasks.tpc_response import TrainTPCResponse
from tasks.train import Train, UsesNetworks

#: Steps that are shown where the job asks for them.
ON_REQUEST = (TrainTPCResponse, ExplainModel, MeasureSpread)


class Report(UsesNetworks):
    """Collect job, data, curves, tables, plots and provenance in one self-contained file."""

    reads = ("name", "dataset.files", "adaptation.files")
    uploads = (("report*.html", "log"),)
    upload_prefix = "report"

    def upstream(self) -> list[Any]:
        """Every step whose output is shown."""
        own = [ExploreData.req(self), Benchmark.req(self), ExportModel.req(self)]
        return [*super().upstream(), *own, *(step.req(self) for step in ON_REQUEST if step.asked_for(self.spec))]

    def make(self, out: Path) -> None:
        """Write ``report.html``."""
        from pidml.report import write_report

        steps = {
            "PrepareDataset": PrepareDataset.req(self).directory,
            "ExploreData": ExploreData.req(self).directory,
            "Benchmark": Benchmark.req(self).directory,
            "ExportModel": ExportModel.req(self).directory,
        }
        steps |= {step.__name__: step.req(self).directory for step in ON_REQUEST if step.asked_for(self.spec)}
        trained = dict(zip((f"Train[{b}]" for b in Train.req(self).branch_map), self.network_directories, strict=True))
        write_report(out / "report.html", self.spec, {**steps, **trained}, extra=_shortage(self))


def _shortage(task: JobTask) -> dict[str, str]:
    """Return what the report's header says of files that the job did without; nothing if it had all."""
    titles = {DATASET: "incomplete input", ADAPTATION: "incomplete experimental input"}
    obtained = {titles[source]: inputs_obtained(task, source=source) for source in sources_of(task)}
    return {title: inputs.sentence() for title, inputs in obtained.items() if inputs.missing}
