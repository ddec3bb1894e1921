"""TrainReplicas and MeasureSpread: how far a job's figures of merit are due to chance."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import luigi

from pidml.errors import SpecError
from pidml.replicas.plan import Replica, others, own
from pidml.spec import JobSpec
from tasks.remote import choose_for_steps, chosen_workflow
from tasks.train import Train, UsesNetworks


class TrainReplicas(Train):
    """Train with other seeds, and without one fold of the tracks at a time; a branch for each network."""

    uploads: ClassVar[tuple[tuple[str, str], ...]] = ()

    @classmethod
    def asked_for(cls, spec: JobSpec) -> bool:
        """Only where the job asks for trainings besides its own."""
        return spec.replicas.active

    def create_branch_map(self) -> dict[int, Any]:
        """Branch → replica, and the species that its network identifies."""
        networks = super().create_branch_map().values()
        return dict(enumerate((replica, species) for replica in others(self.whole_job) for species in networks))

    @property
    def replica(self) -> Replica:
        """Which training a branch is."""
        replica: Replica = self.branch_data[0]
        return replica

    @property
    def species(self) -> tuple[str, ...]:
        """Species that the network of a branch identifies."""
        return tuple(self.branch_data[1])

    @cached_property
    def _spec_of_replica(self) -> JobSpec:
        return self.whole_job if self.is_workflow() else self.replica.job(self.whole_job)

    @property
    def spec(self) -> JobSpec:
        """The specification, with the seed of the branch."""
        return self._spec_of_replica

    def settings(self) -> dict[str, Any]:
        """Settings and species of a training, with the branch's seed, and the fold that it leaves out."""
        fold = None if self.is_workflow() else self.replica.fold
        return super().settings() | {"fold": [fold.number, fold.of] if fold else None}

    @property
    def prepared(self) -> Any:
        """The prepared dataset, opened, without the fold."""
        from pidml.data.folds import FoldedDataset

        whole, fold = super().prepared, self.replica.fold
        return FoldedDataset.without(whole, fold) if fold else whole


class MeasureSpread(UsesNetworks):
    """Judge the job's training and its replicas on the same test tracks: mean and spread by seeds and by folds."""

    workflow = luigi.Parameter(
        default="",
        significant=False,
        description="where the trainings run: local, slurm or htcondor; default: what the profile says",
    )
    exclude_params_repr_empty: ClassVar[set[str]] = {*UsesNetworks.exclude_params_repr_empty, "workflow"}
    #: It goes to steps in another way, see :func:`tasks.remote.choose_for_steps`.
    exclude_params_req_set: ClassVar[set[str]] = {"workflow"}

    version = 2
    reads = ("thresholds",)
    uploads = (("*.png", "image"), ("*.csv", "log"), ("*.json", "log"))
    upload_prefix = "replicas"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.workflow:
            choose_for_steps((Train, TrainReplicas), "workflow", chosen_workflow(self.workflow))

    @classmethod
    def asked_for(cls, spec: JobSpec) -> bool:
        """Only where the job asks for trainings besides its own."""
        return spec.replicas.active

    def complete(self) -> bool:
        """Tell whether it is made; there must be something to make.

        Raises:
            SpecError: the job asks for no replicas.
        """
        if not self.asked_for(self.spec):
            raise SpecError(
                "replicas: seeds = 1, folds = 0: there is nothing but the job's own training",
                "set replicas.seeds (5, for example), replicas.folds, or both in the job file",
            )
        return bool(super().complete())

    def upstream(self) -> list[Any]:
        """Data, the job's own networks, and those of its replicas."""
        return [*super().upstream(), TrainReplicas.req(self)]

    def make(self, out: Path) -> None:
        """Judge, draw, and print the table of F1."""
        from pidml.replicas.spread import measure_spread, summary_lines

        trained: dict[Replica, list[Path]] = {own(self.spec): self.network_directories}
        workflow = TrainReplicas.req(self)
        for branch, (replica, _) in workflow.branch_map.items():
            trained.setdefault(replica, []).append(TrainReplicas.req(self, branch=branch).directory)
        record = measure_spread(self.prepared, trained, self.spec, out)
        print("\n".join(summary_lines(record)), flush=True)  # noqa: T201 - step log
