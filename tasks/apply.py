"""ApplyModel: scores and decisions for every track of given files."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import law
import luigi

from pidml.errors import BundleError, SpecError
from pidml.identity import file_checksum
from pidml.spec import JobSpec
from tasks.download import file_identity
from tasks.export import ExportModel
from tasks.framework import NO_JOB, Step
from tasks.remote import IN_JOB, RemoteWorkflow


class ApplyModel(Step, RemoteWorkflow):
    """Apply the job's networks, or those of a bundle given, to files: one branch and one table of scores per file."""

    version = 2
    reads = ("producer.magnetic_field",)
    asks_for = "apply"
    needs_packages = (*RemoteWorkflow.needs_packages, "onnxruntime")

    files = law.CSVParameter(default=(), description="track tables or AO2D files, separated by commas")
    bundle = luigi.Parameter(default="", description="folder of a bundle; default: what the job's ExportModel makes")
    format = luigi.ChoiceParameter(
        choices=("root", "parquet"), default="root", description="format of the scores; default: root"
    )
    threshold = law.CSVParameter(
        default=(), description="SPECIES=CERTAINTY, separated by commas, instead of the bundle's thresholds"
    )

    @classmethod
    def modify_param_values(cls, params: dict[str, Any]) -> dict[str, Any]:
        """Make paths absolute: a job on a worker has another current folder."""
        params["files"] = tuple(map(_absolute, params.get("files") or ()))
        if params.get("bundle"):
            params["bundle"] = _absolute(params["bundle"])
        return super().modify_param_values(params)

    @cached_property
    def whole_job(self) -> JobSpec:
        """The job; with a bundle and without a job, one that says nothing."""
        return JobSpec() if self.bundle and not self.job and self.job_id == NO_JOB else super().whole_job

    def create_branch_map(self) -> dict[int, str]:
        """One branch per file.

        Raises:
            SpecError: no file is named.
        """
        if not self.files:
            raise SpecError("no files to apply the networks to", "for example: --files a.root,b.root")
        return dict(enumerate(self.files))

    @property
    def thresholds(self) -> dict[str, float]:
        """Thresholds that replace those of the bundle."""
        from pidml.apply.thresholds import parse_thresholds

        return parse_thresholds(self.threshold)

    def settings(self) -> dict[str, Any]:
        """What decides the scores: format, thresholds, the file (or all files), and the bundle if one is given."""
        own = super().settings() | {"format": self.format, "thresholds": self.thresholds}
        if self.bundle:
            own["bundle"] = _manifest_checksum(Path(self.bundle))
        if self.is_workflow():
            return own | {"files": [file_identity(path) for path in self.branch_map.values()]}
        return own | {"file": file_identity(self.branch_data)}

    def upstream(self) -> list[Any]:
        """The networks, unless a bundle is given; for the workflow, its branches."""
        if self.is_workflow():
            return [self.req(self, branch=branch) for branch in self.branch_map]
        return [] if self.bundle else [ExportModel.req(self)]

    def requires(self) -> Any:
        """The networks, unless a bundle is given."""
        return [] if self.bundle else [ExportModel.req(self)]

    def workflow_requires(self) -> Any:
        """The networks, unless a bundle is given."""
        return super().workflow_requires() | ({} if self.bundle else {"networks": ExportModel.req(self)})

    def note_outputs(self) -> None:
        """Scores made with a bundle belong to no job."""
        if not self.bundle:
            super().note_outputs()

    def make(self, out: Path) -> dict[str, Any]:
        """Apply the networks to the branch's file."""
        from pidml.apply import apply_bundle
        from pidml.apply.progress import lines
        from pidml.export import Bundle

        folder = Path(self.bundle) if self.bundle else ExportModel.req(self).directory
        # a job is told how many cores it asked for: the profile, which may say so, stays where jobs are submitted
        bundle = Bundle.open(folder, threads=int(os.environ.get("OMP_NUM_THREADS", "0")) if IN_JOB else 0)
        name = f"scores.{self.format}"
        summary = apply_bundle(
            bundle,
            [self.branch_data],
            out / name,
            thresholds=self.thresholds,
            magnetic_field=self.spec.producer.magnetic_field,
            progress=lines(lambda text: print(text, flush=True)),  # noqa: T201 - step log
        )
        for species, number in summary.accepted.items():
            print(f"{species:<10} {number:>12,} of {summary.tracks:,} tracks accepted")  # noqa: T201
        for line in summary.warnings:
            print(f"warning: {line}")  # noqa: T201
        print(f"{self.branch_data} → {self.directory / name}", flush=True)  # noqa: T201
        return {"apply": summary.as_dict(), "file": self.branch_data}


def _absolute(path: str) -> str:
    return os.path.normpath(Path(path).expanduser().absolute())


def _manifest_checksum(bundle: Path) -> str:
    from pidml.export.files import MANIFEST

    try:
        return file_checksum(bundle / MANIFEST)
    except OSError as error:
        raise BundleError(f"{bundle / MANIFEST}: {error.strerror}", "name the folder of a bundle") from error
