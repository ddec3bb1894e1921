"""What ``pidml doctor`` reports, and what it looks at on the batch system of a profile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pidml.batch.asking import parse_resources, resources_of
from pidml.batch.disks import mount_of, quota_of
from pidml.batch.limits import Request, within_limits
from pidml.batch.preflight import check_site, scheduler_answers
from pidml.batch.probe import PATIENCE, probe
from pidml.batch.site import Site, read_profile
from pidml.errors import PidmlError
from pidml.settings import GIB as _GIB
from pidml.spec.resources_section import Resources


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what was looked at.
        outcome: ok, warning (works with less) or failed (does not work).
        found: what was found.
        advice: what to do, empty if nothing.
    """

    name: str
    outcome: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


def site_checks(
    name: str, store: Path, patience: float = PATIENCE, environ: Mapping[str, str] = os.environ
) -> Iterator[Check]:
    """Look at what a profile needs: commands, partition, shared store with room, a scheduler that answers, a worker.

    Args:
        name: of the profile, or its path.
        store: root of the store.
        patience: longest time for the probe job to answer, in s.
        environ: variables that the profile may name and that jobs may get.
    """
    try:
        site = read_profile(name, environ)
        check_site(site, store)
        scheduler_answers(site)
    except PidmlError as error:
        yield Check("scheduler", "failed", error.what, error.hint)
        return
    if site.workflow == "local":
        yield Check("scheduler", "ok", f"profile {site.name}: jobs run here")
        return
    yield Check("scheduler", "ok", f"profile {site.name}: {site.workflow} answers{_details(site)}")
    yield _shared(site, store)
    if site.submit_dir:
        yield from quota_checks(Path(site.submit_dir).expanduser())
    refused = _refused(site)
    yield _jobs(refused)
    if len(refused) == len(Resources.model_fields):
        return
    try:
        worker = probe(site, store, patience, environ=environ)
    except PidmlError as error:
        yield Check("worker", "failed", error.what, error.hint)
        return
    said = f"{worker.node}: Python {worker.python}, torch {worker.torch}, sees the store"
    yield Check("worker", "ok", f"{said}; answered {worker.seconds:.0f} s after its submission")


def quota_checks(folder: Path, needed: int = 0) -> Iterator[Check]:
    """Look at this user's quota on the file system of a folder; nothing where no command tells of one.

    Args:
        folder: what is written to; it exists or will be made.
        needed: bytes that must stay free.
    """
    quota = quota_of(folder)
    if quota is None:
        return
    outcome: Literal["ok", "warning", "failed"] = "ok" if quota.left > quota.limit / 10 else "warning"
    outcome = "failed" if quota.left < max(needed, 1) else outcome
    found = f"{quota.used / _GIB:.1f} of {quota.limit / _GIB:.1f} GiB used for {folder} (`{quota.command}`)"
    advice = "free some space, ask for more, or use another folder"
    yield Check("quota", outcome, found, "" if outcome == "ok" else advice)


def _refused(site: Site) -> dict[str, PidmlError]:
    """Return the steps whose jobs the site would not take, as the profile and the defaults ask for them, and why."""
    given = parse_resources(site.resources, site.name)
    refused: dict[str, PidmlError] = {}
    for step in Resources.model_fields:
        try:
            within_limits(site, Request(resources_of(Resources(), step, given)))
        except PidmlError as error:
            refused[step] = error
    return refused


def _jobs(refused: Mapping[str, PidmlError]) -> Check:
    if not refused:
        return Check("jobs", "ok", "the scheduler would take the jobs of every step")
    steps: dict[str, list[str]] = {}
    for step, error in refused.items():
        steps.setdefault(error.what, []).append(step)
    found = "; ".join(f"{', '.join(names)}: {what}" for what, names in steps.items())
    return Check("jobs", "failed", found, next(iter(refused.values())).hint)


def _details(site: Site) -> str:
    said = [f"partition {site.partition}"] if site.partition else []
    said += [f"account {site.account}"] if site.account else []
    return f" ({', '.join(said)})" if said else ""


def _shared(site: Site, store: Path) -> Check:
    kind = mount_of(store.resolve()).kind or "unknown"
    if site.shared:
        return Check("shared store", "ok", f"{store} ({kind}) lies below {', '.join(site.shared)}")
    return Check("shared store", "ok", f"{store} ({kind}); a worker decides")
