"""The steps of a training job as law tasks: what each needs, makes and costs. The work itself is done by ``pidml``."""

from __future__ import annotations

from pidml.settings import adopt_dotenv
from tasks import messages, workers
from tasks.apply import ApplyModel
from tasks.benchmark import Benchmark
from tasks.download import DownloadAOD
from tasks.explain import ExplainModel
from tasks.explore import ExploreData
from tasks.export import ExportModel
from tasks.fetch_job import FetchJob
from tasks.prepare import PrepareDataset
from tasks.produce import ProduceTracks
from tasks.publish import PublishCCDB
from tasks.replicas import MeasureSpread, TrainReplicas
from tasks.report import Report
from tasks.tpc_response import TrainTPCResponse
from tasks.train import Train
from tasks.upload import ReportStatus, UploadResults

messages.configure()
adopt_dotenv()
workers.configure()

__all__ = [
    "ApplyModel",
    "Benchmark",
    "DownloadAOD",
    "ExplainModel",
    "ExploreData",
    "ExportModel",
    "FetchJob",
    "MeasureSpread",
    "PrepareDataset",
    "ProduceTracks",
    "PublishCCDB",
    "Report",
    "ReportStatus",
    "Train",
    "TrainReplicas",
    "TrainTPCResponse",
    "UploadResults",
]
