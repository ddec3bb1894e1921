"""What ``pidml doctor`` reports, and what it looks at on the batch system of a profile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pidml.batch.preflight import check_site, file_system, scheduler_answers
from pidml.batch.probe import PATIENCE, probe
from pidml.batch.site import Site, read_profile
from pidml.errors import PidmlError


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
        check_site(site, store, hours=0.0)
        scheduler_answers(site)
    except PidmlError as error:
        yield Check("scheduler", "failed", error.what, error.hint)
        return
    if site.workflow == "local":
        yield Check("scheduler", "ok", f"profile {site.name}: jobs run here")
        return
    yield Check("scheduler", "ok", f"profile {site.name}: {site.workflow} answers{_details(site)}")
    yield _shared(site, store)
    try:
        worker = probe(site, store, patience, environ=environ)
    except PidmlError as error:
        yield Check("worker", "failed", error.what, error.hint)
        return
    said = f"{worker.node}: Python {worker.python}, torch {worker.torch}, sees the store"
    yield Check("worker", "ok", f"{said}; answered {worker.seconds:.0f} s after its submission")


def _details(site: Site) -> str:
    said = [f"partition {site.partition}"] if site.partition else []
    said += [f"account {site.account}"] if site.account else []
    return f" ({', '.join(said)})" if said else ""


def _shared(site: Site, store: Path) -> Check:
    kind = file_system(store.resolve()) or "unknown"
    if site.shared:
        return Check("shared store", "ok", f"{store} ({kind}) lies below {', '.join(site.shared)}")
    return Check("shared store", "ok", f"{store} ({kind}); a worker decides")
