"""What no batch system would grant, or has no room, is said before anything of the run is submitted."""

from __future__ import annotations

import pytest
from support.schedulers.standin_farm import Farm

from pidml.law_command import law_command

pytestmark = pytest.mark.slow


def refusal(farm: Farm, task: str, *options: str, site: str = "slurm", **environment: str) -> str:
    """Run a task that is refused; nothing was submitted or made. Returns what was printed."""
    farm.command = lambda _, *given: law_command(task, ["--job", str(farm.job), *given])  # type: ignore[method-assign]
    done = farm.run("", *options, PIDML_SITE=site, **environment)
    said = done.stdout + done.stderr
    assert done.returncode == 50, said
    assert "Traceback" not in said
    assert not farm.scheduler.jobs()
    assert not farm.made()
    return said


def test_a_step_that_comes_last_is_looked_at_first(farm: Farm) -> None:
    farm.scheduler.set("partitions", "main*|1-00:00:00|(null)")
    farm.write_job(2, resources={"train": {"time": 30}})
    said = refusal(farm, "TrainingJob")
    assert "[P900] Train: jobs ask for 30 h, partition main allows 24 h" in said
    farm.write_job(2, resources={"train": {"gpus": 1}})
    assert "[P900] Train: Slurm has no partition 'gpus'" in refusal(farm, "Report", PIDML_GPU_PARTITION="gpus")


def test_several_branches_in_a_job_ask_for_the_time_of_all(farm: Farm) -> None:
    farm.scheduler.set("partitions", "main*|12:00:00|(null)")
    said = refusal(farm, "DownloadAOD", "--tasks-per-job", "10")
    assert "DownloadAOD: jobs ask for 16 h (4 branches, 4 h each), partition main allows 12 h" in said
    assert "give --tasks-per-job 3 or less" in said


@pytest.mark.parametrize(
    ("training", "gpus", "wants"),
    [
        ({"accelerator": "gpu"}, 0, "wants 1 GPU (training.accelerator: gpu, devices: 1), its jobs ask for 0"),
        ({"accelerator": "gpu", "devices": 4}, 2, "wants 4 GPU (training.accelerator: gpu, devices: 4), its jobs ask"),
        ({"devices": 2}, 1, "wants 2 GPU (training.accelerator: auto, devices: 2), its jobs ask for 1"),
    ],
)
def test_gpus_that_the_training_wants_must_be_asked_for(
    farm: Farm, training: dict[str, object], gpus: int, wants: str
) -> None:
    farm.write_job(2, training=training, resources={"train": {"gpus": gpus}})
    assert f"[P900] Train: the training {wants}" in refusal(farm, "TrainingJob", site="farm")


def test_a_pool_without_a_slot_that_fits(farm: Farm) -> None:
    farm.scheduler.set("slots", "2 8000 1.0E+09 undefined")
    farm.write_job(2, resources={"train": {"cores": 4}})
    said = refusal(farm, "TrainingJob", site="farm")
    assert "Train: no slot of the pool fits jobs with 4 cores, 8 GB, 20 GB of disk" in said
    assert "slots have at most 2 cores, 8 GB" in said


def test_the_room_for_what_the_job_says_that_it_downloads(farm: Farm) -> None:
    farm.write_job(1)
    text = farm.job.read_text()
    path = text.strip().rpartition("- ")[2]
    farm.job.write_text(f"dataset: {{files: [{{path: {path}, size: {10**15}}}]}}\n")
    said = refusal(farm, "TrainingJob", site="farm")
    assert "[P201] DownloadAOD: " in said
    assert "MB left (the disk), the job needs 1096725463 MB" in said


def test_a_step_that_is_complete_is_not_looked_at(farm: Farm) -> None:
    assert farm.run("slurm").returncode == 0
    farm.scheduler.set("partitions", "main*|00:10:00|(null)")
    assert farm.run("slurm").returncode == 0
    assert farm.made() == 4
