"""What the jobs of a step ask for, against what the profile, CERN's classes, a partition or the pool's slots grant."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from pidml.batch import slurm
from pidml.batch.commands import run_command
from pidml.batch.site import JOB_FLAVOURS, Site
from pidml.batch.submission import slurm_lines, takes_flavours
from pidml.errors import BatchError, ConfigError, ToolMissing
from pidml.spec.resources_section import StepResources

_PER_JOB = "lower `time` under resources (in the job, or in a copy of the profile)"


@dataclass(frozen=True)
class Request:
    """What one job asks for.

    Args:
        resources: of one branch.
        branches: branches that a job makes one after the other.
    """

    resources: StepResources
    branches: int = 1

    @property
    def hours(self) -> float:
        """Time of the job in h."""
        return self.resources.time * self.branches

    @property
    def spoken_time(self) -> str:
        """The time for people."""
        each = f" ({self.branches} branches, {self.resources.time:g} h each)" if self.branches > 1 else ""
        return f"{self.hours:g} h{each}"

    def too_long(self, who: str, limit: float, further: str = "") -> ConfigError:
        """Return the error that ``who`` allows ``limit`` h only."""
        fits = int(limit / self.resources.time)
        fewer = f"give --tasks-per-job {fits} or less" if fits >= 1 else _PER_JOB
        return ConfigError(f"jobs ask for {self.spoken_time}, {who} allows {limit:g} h", f"{fewer}{further}")


def within_limits(site: Site, request: Request) -> Site:
    """Check a request against every limit that can be known before jobs are submitted.

    Args:
        site: the profile.
        request: what each job asks for.

    Returns:
        The profile, with ``max_time`` and ``max_memory`` lowered to what a killed job may be raised to.

    Raises:
        ConfigError: a limit is exceeded, or what is asked for does not exist; says which and what there is.
        BatchUnavailable: the scheduler does not answer.
    """
    site = _within_profile(site, request)
    if site.workflow == "slurm":
        site = _within_partition(site, request)
        _accepted(site, request)
    if site.workflow == "htcondor":
        site = _within_slots(site, request)
    return site


def _within_profile(site: Site, request: Request) -> Site:
    asked = request.resources
    if site.max_time and request.hours > site.max_time:
        raise request.too_long(f"the profile {site.name} (max_time)", site.max_time)
    if site.max_memory and asked.memory > site.max_memory:
        raise ConfigError(
            f"jobs ask for {asked.memory:g} GB, the profile {site.name} allows {site.max_memory:g} GB (max_memory)",
            "lower `memory` under resources (in the job, or in a copy of the profile)",
        )
    if site.workflow != "htcondor" or not takes_flavours(site):
        return site
    longest = JOB_FLAVOURS["nextweek"]
    if request.hours > longest:
        raise request.too_long("the longest of CERN's job flavours", longest)
    # a class named in the profile overrules what jobs ask for; then a job killed for its time would get no more
    return replace(site, max_time=_lower(site.max_time, JOB_FLAVOURS.get(site.job_flavour, longest)))


def _lower(*limits: float) -> float:
    """Return the lowest of limits of which 0 is none."""
    return min(filter(None, limits), default=0.0)


# Slurm.


@dataclass(frozen=True)
class Partition:
    """A Slurm partition.

    Args:
        name: its name.
        default: whether it is the default.
        max_hours: longest time of a job in h, 0 for no limit.
        gpus: whether it has GPUs.
        memory: that of its largest node in GB, 0 if unknown.
    """

    name: str
    default: bool
    max_hours: float
    gpus: bool
    memory: float


def partitions() -> list[Partition]:
    """Return the partitions that ``sinfo`` shows; empty if it cannot say.

    Raises:
        BatchUnavailable: Slurm does not answer.
    """
    try:
        out = run_command(["sinfo", "--noheader", "--exact", "--format=%P|%l|%G|%m"])
    except ToolMissing:
        return []
    found: dict[str, Partition] = {}
    for line in out.splitlines():
        name, limit, gres, megabytes = (*line.split("|"), "", "", "")[:4]
        gpus = "gpu" in gres or (name in found and found[name].gpus)
        memory = float(megabytes) / 1000 if megabytes.strip().isdigit() else 0.0
        memory = max(memory, found[name].memory if name in found else 0.0)
        found[name] = Partition(name.rstrip("*"), name.endswith("*"), parse_limit(limit), gpus, memory)
    return list(found.values())


def parse_limit(text: str) -> float:
    """Return a Slurm time limit in h; 0 for none.

    >>> parse_limit("1-12:00:00"), parse_limit("30:00"), parse_limit("infinite")
    (36.0, 0.5, 0.0)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if match is None:
        return 0.0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 24 + hours + minutes / 60 + seconds / 3600


def _partition_of(site: Site, gpus: int) -> str:
    return (site.gpu_partition if gpus else "") or site.partition


def _within_partition(site: Site, request: Request) -> Site:
    known = partitions()
    if not known:
        return site
    gpus = request.resources.gpus
    name, names = _partition_of(site, gpus), ", ".join(each.name for each in known)
    chosen = [each for each in known if (each.name == name if name else each.default)]
    if not chosen:
        what = f"Slurm has no partition {name!r}" if name else "Slurm has no default partition"
        key = "gpu_partition" if gpus and site.gpu_partition else "partition"
        raise ConfigError(what, f"set `{key}` in the profile; there are: {names}")
    limit = max(each.max_hours for each in chosen)
    if limit and request.hours > limit:
        raise request.too_long(f"partition {chosen[0].name}", limit, ", or name another partition")
    if gpus and not any(each.gpus for each in chosen):
        raise ConfigError(f"jobs ask for {gpus} GPU, partition {chosen[0].name} has none", f"partitions: {names}")
    memory = max(each.memory for each in chosen)
    return replace(site, max_time=_lower(site.max_time, limit), max_memory=_lower(site.max_memory, memory))


def _accepted(site: Site, request: Request) -> None:
    """Ask ``sbatch`` itself whether it would take such a job: account, quality of service, cores, memory, GPUs."""
    asked, name = request.resources, _partition_of(site, request.resources.gpus)
    options = [f"--partition={name}"] if name else []
    for line in slurm_lines(asked, site, {}, request.branches):
        options += line.removeprefix("#SBATCH ").split() if isinstance(line, str) else ["--" + "=".join(map(str, line))]
    try:
        run_command(["sbatch", "--test-only", *options, "--wrap=true"])
    except BatchError as error:
        # anything else may pass: submission has patience
        if any(text in error.what.lower() for text in slurm.PERMANENT):
            raise ConfigError(
                f"Slurm would not take jobs with {_spoken(asked)}, {request.spoken_time}: {error.what}",
                "correct the profile, or `resources` in the job",
            ) from error


# HTCondor.


@dataclass(frozen=True)
class Slot:
    """What an HTCondor slot has for jobs: cores, memory in MB, disk in kB, GPUs."""

    cores: int
    memory: float
    disk: float
    gpus: int

    def fits(self, asked: StepResources) -> bool:
        """Tell whether a job that asks for this can run in it."""
        return (
            self.cores >= asked.cores
            and self.memory >= math.ceil(asked.memory * 1000)
            and self.disk >= math.ceil(asked.disk * 1000) * 1024
            and self.gpus >= asked.gpus
        )


def slots() -> list[Slot]:
    """Return the slots of the pool, without those cut out of others; empty if ``condor_status`` cannot say."""
    names = ("TotalSlotCpus", "TotalSlotMemory", "TotalSlotDisk", "TotalSlotGPUs")
    try:
        out = run_command(["condor_status", "-constraint", 'SlotType =!= "Dynamic"', "-af", *names])
    except (BatchError, ToolMissing):
        return []
    rows = [[0.0 if word == "undefined" else float(word) for word in line.split()] for line in out.splitlines()]
    return [Slot(int(row[0]), row[1], row[2], int(row[3])) for row in rows if len(row) == len(names)]


def _within_slots(site: Site, request: Request) -> Site:
    asked, known = request.resources, slots()
    if site.on_demand == "yes" or not known:
        return site
    fitting = [slot for slot in known if slot.fits(asked)]
    if not fitting:
        most = Slot(*(max(getattr(slot, name) for slot in known) for name in ("cores", "memory", "disk", "gpus")))
        raise ConfigError(
            f"no slot of the pool fits jobs with {_spoken(asked, disk=True)}; they would wait for ever",
            f"slots have at most {most.cores} cores, {most.memory / 1000:.4g} GB, {most.disk / 1024e3:.4g} GB of disk, "
            f"{most.gpus} GPU. Lower `resources` in the job or profile; or set `on_demand: yes` in the profile if the "
            "pool makes slots as jobs ask for them",
        )
    memory = max(slot.memory for slot in fitting) / 1000
    return replace(site, max_memory=_lower(site.max_memory, memory))


def _spoken(asked: StepResources, disk: bool = False) -> str:
    said = [f"{asked.cores} cores", f"{asked.memory:g} GB"]
    said += [f"{asked.disk:g} GB of disk"] if disk else []
    return ", ".join([*said, *([f"{asked.gpus} GPU"] if asked.gpus else [])])
