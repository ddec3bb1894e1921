"""In which settings jobs differ, as tables show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from pidml.spec import JobSpec

#: Sections that change what a bundle is; those about judging and running are left out.
_SECTIONS = ("dataset", "producer", "preparation", "response", "model", "training", "adaptation", "thresholds")
#: Where a training runs, not what comes out.
_WHERE = ("training.accelerator", "training.devices")


def differing(jobs: Sequence[JobSpec]) -> list[dict[str, Any]]:
    """Return the settings in which jobs differ: ``key`` and ``values`` in the order of the jobs.

    A value is None where a job does not read the setting (of another architecture, or of a rule it does not use).
    """
    found = [_flat(job) for job in jobs]
    sections = ("seed", *_SECTIONS)
    keys = sorted(dict.fromkeys(key for each in found for key in each), key=lambda k: sections.index(k.split(".")[0]))
    rows = [{"key": key, "values": [each.get(key) for each in found]} for key in keys if key not in _WHERE]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def notices(jobs: Sequence[JobSpec]) -> list[str]:
    """Say which differences of the jobs are not differences of the networks."""
    lines = []
    rules = dict.fromkeys(job.thresholds.rule for job in jobs)
    if len(rules) > 1:
        lines.append(
            f"Thresholds are chosen by different rules ({'; '.join(rules)}): differences of purity, efficiency and F1 "
            "are those of the rules as well as of the networks. AUC does not depend on thresholds."
        )
    return lines


def _flat(job: JobSpec) -> dict[str, Any]:
    result: dict[str, Any] = {"seed": job.seed}
    for name in _SECTIONS:
        section: BaseModel = getattr(job, name)
        if name == "response" and not job.dataset.derive:
            continue
        if name in ("dataset", "training"):  # their identities are made of files' contents
            content = section.model_dump(mode="json")
        else:
            content = section.identity() if hasattr(section, "identity") else section.model_dump(mode="json")
        if name == "dataset":
            content["files"] = _shown(job.dataset.files)
        if name == "adaptation" and job.adaptation.active:
            content["files"] = _shown(job.adaptation.files)
        result |= dict(_leaves(name, content))
    return result


def _shown(files: Sequence[Any]) -> list[str]:
    return [each.path for each in files]


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [leaf for key, each in value.items() for leaf in _leaves(f"{path}.{key}", each)]
