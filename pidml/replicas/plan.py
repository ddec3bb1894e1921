"""Which trainings a job's replicas are."""

from __future__ import annotations

from dataclasses import dataclass

from pidml.data.folds import HELD_OUT, Fold
from pidml.spec import JobSpec

#: What is varied: seeds of the same training, or the tracks that it is made on.
SEEDS, FOLDS = "seeds", "folds"
TEST = "test"
#: What is varied and the sample that replicas are judged on, in the order of tables.
COLUMNS = ((SEEDS, TEST), (FOLDS, TEST), (FOLDS, HELD_OUT))


@dataclass(frozen=True)
class Replica:
    """One training: everything as the job says, but for the seed and for the fold that is left out."""

    seed: int
    fold: Fold | None = None

    @property
    def varies(self) -> str:
        """What it differs in from the job's own training: ``seeds`` or ``folds``."""
        return SEEDS if self.fold is None else FOLDS

    def job(self, job: JobSpec) -> JobSpec:
        """Return the job with the replica's seed."""
        return job.model_copy(update={"seed": self.seed})


def own(job: JobSpec) -> Replica:
    """Return the job's own training, made by the step Train."""
    return Replica(job.seed)


def others(job: JobSpec) -> tuple[Replica, ...]:
    """Return the trainings that ``replicas`` asks for besides the job's own: other seeds, then folds.

    The seed of the n-th is that of the job plus n (modulo 2³¹), so that a larger number of seeds leaves those before as
    they are. Folds have the job's own seed.
    """
    asked = job.replicas
    seeds = tuple(Replica((job.seed + number) % 2**31) for number in range(1, asked.seeds))
    folds = tuple(Replica(job.seed, Fold(number, asked.folds)) for number in range(1, asked.folds + 1))
    return seeds + folds
