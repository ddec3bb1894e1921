"""Train: networks, thresholds and training curves."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import luigi

from pidml.alicetraint.jobs import stop_requested, write_progress
from pidml.batch.site import Site
from pidml.errors import ConfigError
from pidml.spec.model_sections import TREES
from pidml.species import TARGET_NAMES
from tasks.prepare import PrepareDataset, UsesPrepared
from tasks.remote import IN_JOB, RemoteWorkflow
from tasks.sources import sources_of
from tasks.tpc_response import TrainTPCResponse

if TYPE_CHECKING:
    from pidml.training.record import Epoch


class Train(UsesPrepared, RemoteWorkflow):
    """Train one network with six outputs, or (``model.heads: separate``) one network per species in a branch each."""

    version = 5
    reads = ("model", "training", "dataset.derive", "adaptation", "seed")
    uploads: ClassVar[tuple[tuple[str, str], ...]] = (
        ("*.csv", "log"),
        ("thresholds*.json", "log"),
        ("training*.json", "log"),
    )
    upload_prefix = "train"
    asks_for = "train"

    gpus = luigi.Parameter(
        default="",
        significant=False,
        description="GPUs to choose from, such as 0,1; default: all that are visible and free",
    )
    exclude_params_repr_empty: ClassVar[set[str]] = {*UsesPrepared.exclude_params_repr_empty, "gpus"}
    needs_packages = (*RemoteWorkflow.needs_packages, "torch", "lightning")

    def create_branch_map(self) -> dict[int, tuple[str, ...]]:
        """Branch → species that its network identifies."""
        if self.spec.model.heads == "shared":
            return {0: TARGET_NAMES}
        return {branch: (name,) for branch, name in enumerate(TARGET_NAMES)}

    @property
    def species(self) -> tuple[str, ...]:
        """Species that the network of a branch identifies."""
        return tuple(self.branch_data)

    def settings(self) -> dict[str, Any]:
        """Settings, and the species of a branch."""
        return super().settings() | ({} if self.is_workflow() else {"species": list(self.species)})

    def upstream(self) -> list[Any]:
        """The prepared data and what derived features need; for the workflow, its branches."""
        if self.is_workflow():
            return [self.req(self, branch=branch) for branch in self.branch_map]
        return self._data()

    def requires(self) -> Any:
        """The prepared data and what derived features need."""
        return self._data()

    def workflow_requires(self) -> Any:
        """The prepared data and what derived features need."""
        return super().workflow_requires() | {"prepared": self._data()}

    def _data(self) -> list[Any]:
        """Return samples of the simulation, of experimental data that the job adapts to, and the TPC response."""
        response = [TrainTPCResponse.req(self)] if TrainTPCResponse.asked_for(self.spec) else []
        return [*(PrepareDataset.req(self, source=source) for source in sources_of(self)), *response]

    @property
    def derived(self) -> list[Any]:
        """What derived features are computed with."""
        if not TrainTPCResponse.asked_for(self.spec):
            return []
        from pidml.response import load_response

        return [load_response(TrainTPCResponse.req(self).directory, self.prepared.scaling)]

    def check_request(self) -> Site:
        """Besides what holds for every step: jobs get the GPUs that the training wants."""
        training, gpus = self.spec.training, self.resources_asked.gpus
        falls_short = gpus < training.devices and (gpus > 0 or training.accelerator == "gpu")
        if falls_short and training.accelerator != "cpu" and self.spec.model.architecture not in TREES:
            raise ConfigError(
                f"the training wants {training.devices} GPU (training.accelerator: {training.accelerator}, devices: "
                f"{training.devices}), its jobs ask for {gpus}",
                f"write `resources: {{train: {{gpus: {training.devices}}}}}` into the job, or `train.gpus = "
                f"{training.devices}` under `resources` in a copy of the profile; or change training.devices",
            )
        return super().check_request()

    def make(self, out: Path) -> dict[str, Any] | None:
        """Train; resumes from the last checkpoint if an earlier attempt was killed."""
        from pidml.gpus import reserved

        spec, architecture = self.spec.training, self.spec.model.architecture
        if unread := self.spec.unread():
            print(f"not read by {architecture}: {', '.join(unread)}", flush=True)  # noqa: T201 - step log
        granted = round(self.resources_asked.memory * 1e9) if IN_JOB else None
        with reserved("cpu" if architecture in TREES else spec.accelerator, spec.devices, self.gpus) as devices:
            from pidml.training import train  # after the devices are chosen: it loads torch

            where = f"GPU {', '.join(map(str, devices))}" if devices else "the processor"
            print(f"trains on {where}", flush=True)  # noqa: T201 - step log
            work = self.store.work(type(self).__name__, self.digest)
            summary = train(
                self.prepared, self.spec, self.species, work, out, after_epoch=self._after_epoch,
                experimental=self.experimental, derived=self.derived, memory_bytes=granted,
            )  # fmt: skip
        return {"training": dataclasses.asdict(summary), "devices": [gpu.uuid for gpu in devices]}

    def _after_epoch(self, epoch: Epoch, epochs: int) -> bool:
        """Log an epoch; ask for a stop where the poller waits for the job to reach a safe point."""
        print(  # noqa: T201 - step log
            f"epoch {epoch.epoch + 1} of at most {epochs}: training loss {epoch.train_loss:.5f}, validation loss "
            f"{epoch.val_loss:.5f}, {epoch.seconds:.1f} s, {epoch.tracks_per_second:,.0f} tracks/s",
            flush=True,
        )
        if self.job_directory is None:
            return False
        write_progress(self.job_directory, type(self).__name__, epoch.epoch + 1, epochs)
        return stop_requested(self.job_directory)

    def published(self) -> None:
        """The checkpoints have served."""
        shutil.rmtree(self.store.work(type(self).__name__, self.digest), ignore_errors=True)


class UsesNetworks(UsesPrepared):
    """A step that reads the prepared data and the trained networks."""

    exclude_index = True

    def upstream(self) -> list[Any]:
        """Data and networks."""
        return [*super().upstream(), Train.req(self)]

    @property
    def network_directories(self) -> list[Path]:
        """Output directories of the training branches, in the order of the species."""
        workflow = Train.req(self)
        return [Train.req(self, branch=branch).directory for branch in workflow.branch_map]
