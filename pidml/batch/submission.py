"""What a job asks for: resources and site in the scheduler's language."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pidml.batch.htcondor import TOKEN
from pidml.batch.site import JOB_FLAVOURS, SHORTEST, Site
from pidml.spec.resources_section import StepResources


def raised(asked: StepResources, site: Site, note: Mapping[str, Any], branches: int = 1) -> tuple[int, int, int]:
    """Return memory in MB, time in min and disk in MB of a job, after what earlier attempts were killed for.

    Args:
        asked: what the specification says for one branch.
        site: its limits hold.
        note: factors ``memory``, ``time`` and ``disk``, 1 at first.
        branches: how many the job makes one after the other.
    """
    memory = asked.memory * float(note.get("memory", 1))
    least = asked.time * branches
    hours = least * float(note.get("time", 1))
    if site.max_memory:
        memory = min(memory, max(site.max_memory, asked.memory))
    if site.max_time:
        hours = min(hours, max(site.max_time, least))
    disk = asked.disk * float(note.get("disk", 1))
    return math.ceil(memory * 1000), max(1, math.ceil(hours * 60)), math.ceil(disk * 1000)


def slurm_lines(asked: StepResources, site: Site, note: Mapping[str, Any], branches: int) -> list[Any]:
    """Return the lines of a Slurm job file, in the form that law writes them.

    Args:
        asked: resources of one branch.
        site: the profile.
        note: what is known from earlier attempts, see :func:`raised`.
        branches: branches that the job makes one after the other.
    """
    memory, minutes, _ = raised(asked, site, note, branches)
    lines: list[Any] = [
        ("nodes", 1),
        ("ntasks", 1),
        ("cpus-per-task", asked.cores),
        ("mem", f"{memory}M"),
        ("time", minutes),
        ("open-mode", "append"),
        # Only variables named here: the submitter's environment may hold keys, and differs from place to place.
        ("export", "HOME,USER,LANG,PATH"),
        ("no-requeue",),
    ]
    if asked.gpus:
        lines.append(("gres", f"gpu:{asked.gpus}"))
    lines += [(name, value) for name, value in (("account", site.account), ("qos", site.qos)) if value]
    return lines + [f"#SBATCH {option}" for option in site.options]


def htcondor_lines(
    asked: StepResources, site: Site, note: Mapping[str, Any], branches: int, token: str
) -> list[tuple[str, Any]]:
    """Return the lines of an HTCondor submit file, in the form that law writes them.

    Args:
        asked: resources of one branch.
        site: the profile.
        note: what is known from earlier attempts, see :func:`raised`.
        branches: branches that the job makes one after the other.
        token: by which the submission is found again.
    """
    memory, minutes, disk = raised(asked, site, note, branches)
    seconds = minutes * 60
    lines: list[tuple[str, Any]] = [
        ("request_cpus", asked.cores),
        ("request_memory", f"{memory} MB"),
        ("request_disk", f"{disk} MB"),
        (f"+{TOKEN}", f'"{token}"'),
        ("batch_name", "-".join(token.split("-")[:3])),
    ]
    if asked.gpus:
        lines.append(("request_gpus", asked.gpus))
    if takes_flavours(site):
        chosen = flavour(seconds / 3600) if site.job_flavour == SHORTEST else site.job_flavour
        lines.append(("+JobFlavour", f'"{chosen}"'))
    else:
        lines += [("+MaxRuntime", seconds), ("allowed_execute_duration", seconds)]
    if site.account:
        lines.append(("accounting_group", site.account))
    for option in site.options:
        name, _, value = option.partition("=")
        lines.append((name.strip(), value.strip()))
    return lines


def takes_flavours(site: Site) -> bool:
    """Tell whether the site wants the running time as one of :data:`JOB_FLAVOURS`."""
    return bool(site.job_flavour)


def flavour(hours: float) -> str:
    """Return the shortest of CERN's classes of running time that fits.

    >>> flavour(2.5)
    'workday'
    """
    return next((name for name, limit in JOB_FLAVOURS.items() if hours <= limit), "nextweek")
