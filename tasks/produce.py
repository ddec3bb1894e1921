"""ProduceTracks: track tables from AO2D files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import law

from pidml.producer.containers import records_of
from pidml.producer.shares import Share, share_of_group
from tasks.download import FILE_NAME, DownloadAOD, branch_files
from tasks.remote import RemoteWorkflow
from tasks.sources import OfFiles


class ProduceTracks(OfFiles, RemoteWorkflow):
    """Make one track table per group of files. Files that are track tables already pass through unchanged."""

    reads = ("producer", "dataset.simulation")

    print_command = law.CSVParameter(
        default=(),
        significant=False,
        description="print what O2Physics would run, and run nothing: `all`, or numbers of groups separated by commas",
    )
    interactive_params: ClassVar[list[str]] = [*law.Task.interactive_params, "print_command"]
    asks_for = "produce"

    def create_branch_map(self) -> dict[int, list[int]]:
        """Groups of files: branch → branches of DownloadAOD."""
        size = self.spec.producer.files_per_group
        files = list(range(len(self.spec.dataset.files)))
        return {branch: files[start : start + size] for branch, start in enumerate(range(0, len(files), size))}

    def settings(self) -> dict[str, Any]:
        """Producer settings; where something is drawn, also the seed and the group's share of it."""
        settings, producer = super().settings(), self.spec.producer
        if (producer.subsample_tracks or producer.subsample_events) and not self.is_workflow():
            settings |= {"seed": self.spec.seed, "group": self.branch, "share": asdict(self.share)}
        return settings

    @property
    def share(self) -> Share:
        """What the group gives to the subsample of the job."""
        return share_of_group(self.spec.producer, self.spec.dataset.files, self.branch)

    def upstream(self) -> list[Any]:
        """The files of the group; for the workflow, its branches."""
        if self.is_workflow():
            return [self.req(self, branch=branch) for branch in self.branch_map]
        return [DownloadAOD.req(self, branch=branch) for branch in self.branch_data]

    def workflow_requires(self) -> Any:
        """All files."""
        return super().workflow_requires() | {"files": DownloadAOD.req(self)}

    def requires(self) -> Any:
        """The files of this group."""
        return self.upstream()

    def _print_command(self, args: Any) -> None:
        from pidml.producer.o2physics import describe_command

        groups = self.branch_map if self.is_workflow() else {self.branch: self.branch_data}
        chosen = {str(each) for each in args} - {"all"}
        for group, files in groups.items():
            if not chosen or str(group) in chosen:
                paths = [DownloadAOD.req(self, branch=branch).directory / FILE_NAME for branch in files]
                print(f"# group {group}")  # noqa: T201 - what was asked for
                print(describe_command(paths, self.spec.producer, simulation=self.spec.dataset.simulation))  # noqa: T201

    def make(self, out: Path) -> dict[str, Any] | None:
        """Run the producer that the job names."""
        from pidml.producer.dispatch import produce

        inputs = branch_files(self, self.branch_data)
        if not inputs:  # DownloadAOD has recorded why; whether enough is left is checked when the data are prepared
            return {"produced": None}
        return produce(
            inputs,
            out,
            self.spec.producer,
            simulation=self.spec.dataset.simulation,
            seed=self.spec.seed + self.branch,
            records=records_of(self.store.root),
            share=self.share,
        )
