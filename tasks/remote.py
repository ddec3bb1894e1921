"""Steps on a batch system: ``--workflow local|slurm|htcondor`` for every step that is made of branches.

The same task runs here or there; its output lies at the same address. What a site wants is in its profile
(``configs/sites``, chosen by ``PIDML_SITE``), what a job asks for in the specification's section ``resources``.
Requirements are resolved where the jobs are submitted: a job on a worker makes its own branch and nothing else.
"""

from __future__ import annotations

import base64
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import law
import luigi
import luigi.configuration
from law.config import Config

from pidml import resources
from pidml.atomic import write_json, write_text
from pidml.batch.asking import parse_resources, resources_of
from pidml.batch.environment import job_environment
from pidml.batch.limits import Request
from pidml.batch.preflight import check_site
from pidml.batch.site import SECTION, WORKFLOWS, Site, profile_file
from pidml.batch.submission import htcondor_lines, slurm_lines
from pidml.errors import BatchError, ConfigError
from pidml.identity import digest
from pidml.spec.resources_section import StepResources
from tasks.framework import NO_JOB, JobTask

law.contrib.load("slurm", "htcondor")
from tasks.remote_plan import check_plan  # noqa: E402
from tasks.remote_proxy import HTCondor, Slurm  # noqa: E402 - needs the contribs

#: Set by law's job script: this process is a job on a worker.
IN_JOB = "LAW_JOB_HOME" in os.environ


@cache
def current_site() -> Site:
    """Return the profile in force: that of ``PIDML_SITE``, or the section ``[pidml_site]`` of law's configuration.

    Raises:
        ConfigError: there is no such profile, or it holds something that is not allowed.
    """
    if IN_JOB:
        return Site()
    config = Config.instance()
    source = "law.cfg"
    if name := os.environ.get("PIDML_SITE"):
        source = str(profile_file(name))
        config.include(source)
        config.sync_luigi_config()
    if not config.has_section(SECTION):
        return Site()
    options = {key: config.get_expanded(SECTION, key) or "" for key in config.options(SECTION)}
    return Site.from_options({"name": Path(source).stem} | options, source)


def chosen_workflow(given: str) -> str:
    """Return the kind of workflow that is given or, if it is empty, that of the profile.

    Raises:
        ConfigError: there is no such kind, or the profile cannot be used.
    """
    chosen = given or current_site().workflow
    if chosen not in WORKFLOWS:
        raise ConfigError(f"--workflow {chosen}: not known", f"allowed: {', '.join(WORKFLOWS)}")
    return chosen


class RemoteWorkflow(JobTask, law.LocalWorkflow, Slurm, HTCondor):
    """A step made of branches that run on this machine, on Slurm or on HTCondor."""

    exclude_index = True

    retries = luigi.IntParameter(
        default=2,
        significant=False,
        description="times that a failed job is tried again; jobs lost by the batch system do not count; default: 2",
    )
    poll_fails = luigi.IntParameter(
        default=60,
        significant=False,
        description="consecutive failed queries of the scheduler before giving up; default: 60",
    )

    _known_params: ClassVar[list[tuple[str, luigi.Parameter]]]
    #: Section of ``resources`` in the specification.
    asks_for: ClassVar[str] = "produce"
    #: Packages without which a worker cannot run the step.
    needs_packages: ClassVar[tuple[str, ...]] = ("law", "luigi", "pydantic", "numpy", "uproot")

    @classmethod
    def get_params(cls) -> list[tuple[str, luigi.Parameter]]:
        """Return the parameters, looked up once per class: luigi searches the class anew nine times per branch."""
        if "_known_params" not in cls.__dict__:
            cls._known_params = super().get_params()
        return list(cls._known_params)

    @classmethod
    def modify_param_values(cls, params: dict[str, Any]) -> dict[str, Any]:
        """Take the kind of workflow from the profile unless it is given; jobs on a worker are always local."""
        given = params.get("workflow")
        params["workflow"] = chosen_workflow("" if given in (None, law.NO_STR) or IN_JOB else str(given))
        return dict(super().modify_param_values(params))

    @property
    def resources_asked(self) -> StepResources:
        """What one job of this step asks for."""
        site = current_site()
        return resources_of(self.spec.resources, self.asks_for, parse_resources(site.resources, site.name))

    @staticmethod
    def site_of(workflow: str) -> Site:
        """Return the profile in force for a kind of workflow, which may have been chosen on the command line."""
        return replace(current_site(), workflow=workflow)

    @property
    def request(self) -> Request:
        """What one job of this step asks for, all branches that it makes taken together."""
        return Request(self.resources_asked, max(1, min(self.tasks_per_job, len(self.branch_map))))

    def bytes_to_write(self) -> int:
        """Bytes that the missing branches will write, as far as that is known."""
        return 0

    def check_request(self) -> Site:
        """Check what can be known before jobs are submitted; return the profile with the limits that there are.

        Raises:
            ConfigError, ToolMissing, BatchError, DiskFull: see :func:`pidml.batch.preflight.check_site`.
        """
        site = self.site_of(self.effective_workflow)
        return check_site(site, self.store.root, self.request, self.bytes_to_write())

    def bound(self, cause: str) -> float:
        """Largest factor by which the site allows memory, time or disk to be raised; 0 for no limit."""
        site: Site = self.workflow_proxy.site
        limits = {"memory": (site.max_memory, self.resources_asked.memory), "time": (site.max_time, self.request.hours)}
        limit, asked = limits.get(cause, (0.0, 1.0))
        return max(1.0, limit / asked) if limit else 0.0

    @property
    def work(self) -> Path:
        """Folder with job files and state of this workflow's jobs."""
        name, elsewhere = type(self).__name__, current_site().submit_dir
        if elsewhere:  # several stores may use it
            return Path(elsewhere).expanduser() / digest(str(self.store.root)) / name / self.digest
        return self.store.output(name, f"{self.digest}.work")

    def job_log(self, branches: list[int]) -> Path:
        """Return the log of the job that makes some branches: beside the log of its first branch."""
        log: Path = self.as_branch(branches[0]).log_file
        return log.with_suffix(".job.log")

    def deps(self) -> list[Any]:
        """On a worker nothing is made but the branch itself: what it needs must be there.

        Raises:
            BatchError: it is not.
        """
        if not IN_JOB:
            return super().deps()
        needed = luigi.task.flatten(self.requires())  # type: ignore[no-untyped-call]
        if absent := [str(task) for task in needed if not task.complete()]:
            raise BatchError(
                f"{self}: not complete as seen from {platform.node()}: {', '.join(absent)}",
                f"is the store {self.store.root} on a file system that workers share?",
            )
        return []

    # What law asks of each kind of workflow; both kinds get the same answers.

    def slurm_output_directory(self) -> Any:
        """Folder of the state file."""
        return law.LocalDirectoryTarget(str(self.work))

    def slurm_log_directory(self) -> Any:
        """Folder of job logs: beside the logs of the step."""
        return law.LocalDirectoryTarget(str(self.log_file.parent))

    def slurm_bootstrap_file(self) -> Any:
        """The script that prepares a worker."""
        return law.JobInputFile(str(resources.scripts() / "bootstrap.sh"), share=True, render_job=True)

    def htcondor_job_file(self) -> Any:
        """Return law's job script, one per job: law shares one, which only works if jobs are submitted in groups."""
        return self.slurm_job_file()

    def slurm_check_job_completeness(self) -> bool:
        """A job that ended well has outputs."""
        return True

    def slurm_dump_intermediate_job_data(self) -> int:
        """While jobs are submitted the journal remembers them; dumping thousands every few would be quadratic."""
        return 10**9

    def slurm_post_submit_delay(self) -> float:
        """Seconds before the first query; law's default is a whole polling interval."""
        return float(min(1.0, self.poll_interval * 60))

    def slurm_cmdline_args(self) -> dict[str, str]:
        """A job gets the job as it was when submitted, wherever the file lies and whatever becomes of it."""
        return {"--job": str(self.work / "job.json")} if self.job_id == NO_JOB else {}

    htcondor_output_directory = slurm_output_directory
    htcondor_log_directory = slurm_log_directory
    htcondor_bootstrap_file = slurm_bootstrap_file
    htcondor_check_job_completeness = slurm_check_job_completeness
    htcondor_dump_intermediate_job_data = slurm_dump_intermediate_job_data
    htcondor_post_submit_delay = slurm_post_submit_delay
    htcondor_cmdline_args = slurm_cmdline_args

    def slurm_poll_callback(self, _poll_data: Any) -> None:
        """Ask rarely about long jobs, often about short ones."""
        self.workflow_proxy.slow_down()

    htcondor_poll_callback = slurm_poll_callback

    def slurm_job_config(self, config: Any, job_num: int, branches: list[int]) -> Any:
        """Fill in the job file for Slurm."""
        note = self.workflow_proxy.note(job_num)
        config.job_name = self.workflow_proxy.token(job_num)
        asked, site = self.resources_asked, current_site()
        if not config.partition:
            config.partition = (site.gpu_partition if asked.gpus else "") or site.partition or None
        config.custom_content += slurm_lines(asked, self.workflow_proxy.site, note, len(branches))
        # stdout and stderr in one file, continued by the next attempt, with what Slurm itself says about a kill
        config.stdout = config.stderr = self.job_log(branches).name
        config.postfix_output_files = False
        return self._job_config(config)

    def htcondor_job_config(self, config: Any, job_num: int, branches: list[int]) -> Any:
        """Fill in the submit file for HTCondor."""
        note = self.workflow_proxy.note(job_num)
        token = self.workflow_proxy.token(job_num)
        config.custom_content += htcondor_lines(
            self.resources_asked, self.workflow_proxy.site, note, len(branches), token
        )
        config.log = config.stdout = config.stderr = None
        if current_site().submit_dir:  # a folder that the schedd reads and writes; CERN's insists on a log
            config.custom_content.append(("log", str(self.work / "htcondor.log")))
        config.postfix_output_files = False
        # written by the job itself while it runs: it can be read then, and is there even if the job is killed
        config.render_variables["log_file"] = str(self.job_log(branches))
        return self._job_config(config)

    def _job_config(self, config: Any) -> Any:
        """Fill in what the bootstrap script wants to know."""
        environment = job_environment(os.environ, self.store.root, self.resources_asked.cores)
        exports = "\n".join(f"export {key}={shlex.quote(value)}" for key, value in environment.items())
        config.render_variables |= {
            "pidml_environment": _encoded(exports),
            "pidml_setup": _encoded("\n".join(current_site().setup)),
            "pidml_python": sys.executable,
            "pidml_root": str(resources.ROOT) if (resources.ROOT / "tasks").is_dir() else "",
            "pidml_marker": str(self.marker.relative_to(self.store.root)),
            "pidml_version": platform.python_version(),
            "pidml_modules": ",".join(self.needs_packages),
            "law_job_tmp": "",
        }
        if self.effective_workflow == "slurm":
            config.render_variables["law_job_base"] = "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"
        return config

    @property
    def marker(self) -> Path:
        """A file by which a worker knows that it sees this store."""
        return self.store.output(type(self).__name__, f"{self.digest}.work") / "visible"

    def prepare_submission(self) -> None:
        """Write what jobs read: the job itself and the mark by which they know the store."""
        write_text(self.marker, platform.node() + "\n")
        if self.job_id == NO_JOB:
            write_json(self.work / "job.json", self.whole_job.model_dump(mode="json"))


def _look(task: JobTask) -> None:
    """Check everything that would be submitted, unless nothing would be."""
    submits = current_site().workflow != "local" or getattr(task, "effective_workflow", "local") != "local"
    if submits and not IN_JOB:
        check_plan(task)


JobTask.looks.append(_look)


def choose_for_steps(steps: Iterable[type[RemoteWorkflow]], option: str, value: str) -> None:
    """Set what an option is for steps that have it, unless the command line says otherwise for one of them.

    Args:
        steps: the steps; none has been made use of yet.
        option: name of a parameter.
        value: as on the command line.
    """
    settings = luigi.configuration.get_config()  # type: ignore[no-untyped-call]
    for step in steps:
        if option in dict(step.get_params()):
            if not settings.has_section(step.__name__):
                settings.add_section(step.__name__)
            settings.set(step.__name__, option, value)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
