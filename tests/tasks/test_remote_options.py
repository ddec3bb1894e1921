"""Options that shape a submission: several branches per job, few jobs at a time, not waiting, what may fail."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.schedulers.standin_farm import Farm

pytestmark = pytest.mark.slow


@pytest.fixture
def farm(farm: Farm) -> Farm:
    farm.write_job(7)
    return farm


def test_a_job_of_several_branches_asks_for_the_time_of_all(farm: Farm) -> None:
    farm.write_job(7, resources={"download": {"time": 4, "memory": 2}})
    farm.made_by_several(3)
    farm.fail(3, "minutes:900")
    done = farm.run("slurm", "--tasks-per-job", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert farm.made() == 7
    asked = [(farm.branch_of(job), job["minutes"], job["memory"]) for job in farm.scheduler.jobs()]
    assert sorted(asked) == [(0, 720, 2000), (3, 720, 2000), (3, 1440, 2000), (6, 240, 2000)]


def test_the_time_of_all_branches_of_a_job_must_be_allowed(farm: Farm) -> None:
    farm.scheduler.set("partitions", "main*|10:00:00|(null)|64000")
    farm.write_job(7, resources={"download": {"time": 4}})
    done = farm.run("slurm", "--tasks-per-job", "3")
    assert done.returncode == 50
    assert "jobs ask for 12 h (3 branches, 4 h each), partition main allows 10 h" in done.stdout + done.stderr
    assert not farm.scheduler.jobs()
    farm.made_by_several(2)
    farm.fail(0, "minutes:500")
    done = farm.run("slurm", "--tasks-per-job", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [job["minutes"] for job in farm.scheduler.jobs() if farm.branch_of(job) == 0] == [480, 600]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--tolerance", "3"), 0),
        (("--tolerance", "2"), 40),
        (("--acceptance", "4"), 0),
        (("--acceptance", "5"), 40),
    ],
)
def test_what_may_fail_is_counted_in_branches(farm: Farm, options: tuple[str, ...], code: int) -> None:
    farm.made_by_several(3)
    farm.fail(0, "exit:60")
    done = farm.run("slurm", "--tasks-per-job", "3", "--retries", "0", *options)
    assert done.returncode == code, done.stdout + done.stderr
    assert farm.made() == 4
    assert "Traceback" not in done.stdout + done.stderr


def test_no_more_jobs_than_allowed_are_in_the_queue(farm: Farm) -> None:
    for branch in range(7):
        farm.fail(branch, "exit:60" if branch == 4 else "RUNNING:1")
    done = farm.run("slurm", "--parallel-jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = farm.scheduler.jobs()
    assert len(jobs) == 8
    for job in jobs:
        beside = [each for each in jobs if each["submitted"] <= job["submitted"] < each["ended"]]
        assert len(beside) <= 2


def test_jobs_that_nobody_waits_for_are_collected_later(farm: Farm) -> None:
    for branch in range(7):
        farm.fail(branch, "RUNNING:10")
    done = farm.run("slurm", "--no-poll")
    assert len(farm.scheduler.jobs()) == 7, done.stdout + done.stderr
    assert farm.made() == 0
    assert done.returncode == 0, done.stdout + done.stderr
    done = farm.run("slurm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(farm.submissions().values()) == {1}
    assert farm.made() == 7


def test_commands_grow_with_the_number_of_jobs_and_no_faster(tmp_path: Path) -> None:
    asked = {}
    for branches in (100, 200):
        folder = tmp_path / str(branches)
        folder.mkdir()
        farm = Farm(folder, branches=branches)
        farm.constants = {"tasks.remote_manager.Watched.chunk_size_query": 50}
        farm.scheduler.slots = 50
        with farm.scheduler.running():
            done = farm.run("slurm")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(farm.scheduler.jobs()) == branches
        assert farm.scheduler.calls("sbatch") <= branches + 5, "and a few to ask what it would take"
        assert farm.submissions() == dict.fromkeys(range(branches), 1)
        rounds = len(re.findall(rf"all: {branches},", done.stdout))
        asked[branches] = max(farm.scheduler.calls(name) for name in ("squeue", "sacct")) / rounds
        state = json.loads(next(farm.store.glob("DownloadAOD/*.work/slurm_jobs*.json")).read_text())
        assert len(state["jobs"]) == branches
    assert asked[100] <= 2
    assert asked[200] <= 4
