"""PrepareDataset: training, validation and test samples from track tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.download import forget_passing, inputs_obtained
from tasks.framework import Step
from tasks.produce import ProduceTracks
from tasks.sources import ADAPTATION, OfFiles


class PrepareDataset(OfFiles):
    """Cut, split, shuffle and scale the tracks; memory is bounded, the arrays can be mapped."""

    version = 2
    reads = ("preparation", "dataset.simulation", "dataset.require", "seed")
    uploads = (("meta.json", "log"),)
    upload_prefix = "prepare"

    def upstream(self) -> list[Any]:
        """All track tables."""
        return [ProduceTracks.req(self)]

    def make(self, out: Path) -> dict[str, Any]:
        """Check that enough of the files were had, then prepare."""
        from pidml.data.prepare import prepare
        from pidml.errors import DownloadError, InputMissing

        inputs = inputs_obtained(self)
        if not inputs.enough:
            passing = forget_passing(self)
            kind = DownloadError if passing else InputMissing
            raise kind(inputs.sentence(), f"see the logs of DownloadAOD, or lower {self.source}.require")
        prepare(
            track_tables(self),
            out,
            self.spec.preparation,
            simulation=self.spec.dataset.simulation,
            seed=self.spec.seed,
        )
        return {"inputs": inputs.as_json()}


def track_tables(task: Any) -> list[Path]:
    """Return the track tables that the branches of ProduceTracks made, in order."""
    produced = ProduceTracks.req(task)
    folders = [ProduceTracks.req(task, branch=branch).directory for branch in produced.branch_map]
    return [path for folder in folders for path in sorted(folder.glob("tracks*.root"))]


class UsesPrepared(Step):
    """A step that reads the prepared data."""

    exclude_index = True

    def upstream(self) -> list[Any]:
        """The prepared data."""
        return [PrepareDataset.req(self)]

    @property
    def prepared(self) -> Any:
        """The prepared dataset, opened."""
        from pidml.data.prepared import PreparedDataset

        return PreparedDataset.open(PrepareDataset.req(self).directory)

    @property
    def experimental(self) -> Any:
        """The experimental samples that the job adapts to, opened; None if it does not."""
        from pidml.data.prepared import PreparedDataset

        if not self.whole_job.adaptation.active:
            return None
        return PreparedDataset.open(PrepareDataset.req(self, source=ADAPTATION).directory)
