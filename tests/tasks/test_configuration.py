"""What ``law run`` says of a machine's configuration, and which options of a whole job reach its steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_job import law_run, python

from pidml.law_command import law_environment


@pytest.mark.parametrize("task", ["TrainingJob", "DownloadAOD"])
@pytest.mark.parametrize(
    ("options", "environment", "code", "said"),
    [
        ((), {"PIDML_FETCH_PARALLEL": "x"}, 1, "[P900] PIDML_FETCH_PARALLEL = 'x'"),
        (("--workflow", "pbs"), {}, 60, "ERROR [P900] --workflow pbs: not known"),
        ((), {"PIDML_SITE": "SITE"}, 60, "ERROR [P900] SITE: unknown option 'partitoin' in [pidml_site]"),
    ],
)
def test_a_wrong_configuration_is_said_in_one_line_and_a_hint(
    tmp_path: Path, task: str, options: tuple[str, ...], environment: dict[str, str], code: int, said: str
) -> None:
    site = tmp_path / "site.cfg"
    site.write_text("[pidml_site]\nworkflow: slurm\npartitoin: long\n")
    given = {key: str(site) if value == "SITE" else value for key, value in environment.items()}
    done = law_run(tmp_path / "store", task, "--job", "sandbox", *options, **given)
    assert done.returncode == code, done.stdout + done.stderr
    first, hint = done.stderr.splitlines()
    assert first == said.replace("SITE", str(site))
    assert hint.startswith("  → ")
    assert not done.stdout


SHOW = """
import pipelines
from tasks import DownloadAOD, ProduceTracks, Train

pipelines.TrainingJob(job="sandbox", workflow="slurm", retries=5, parallel_jobs=3, tasks_per_job=2, poll_interval=5.0,
                      poll_fails=7, gpus="1")
for step in (DownloadAOD, ProduceTracks, Train):
    made = step(job="sandbox")
    print(made.workflow, made.retries, made.parallel_jobs, made.tasks_per_job, made.poll_interval, made.poll_fails)
print(made.gpus)
pipelines.TrainingJob(job="masked-mlp")
print(Train(job="masked-mlp").retries)
"""


def test_options_of_a_whole_job_go_to_its_steps(tmp_path: Path) -> None:
    done = python("-c", SHOW, env=law_environment(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*["slurm 5 3 2 5.0 7"] * 3, "1", "5"], "an option stays for the process"
    options = [
        "--workflow",
        "slurm",
        "--retries",
        "5",
        "--poll-interval",
        "5m",
        "--tasks-per-job",
        "2",
        "--Train-workflow",
        "local",
    ]
    done = law_run(tmp_path, "TrainingJob", "--job", "sandbox", *options, "--print-deps", "-1")
    assert done.returncode == 0, done.stderr
    for step, place in (("DownloadAOD", "slurm"), ("ProduceTracks", "slurm"), ("Train", "local")):
        shown = {line.split("> ")[1] for line in done.stdout.splitlines() if f"> {step}(" in line}
        assert all(f"workflow={place}" in line for line in shown), shown
