"""Writes the report: collects what the steps left, and fills the template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from pidml import __version__
from pidml.atomic import write_text
from pidml.report import collect, texts
from pidml.spec import JobSpec


def write_report(
    out_file: Path, job: JobSpec, steps: Mapping[str, Path | None], extra: Mapping[str, str] | None = None
) -> None:
    """Write one self-contained HTML file about a job.

    Sections whose step has no output are left out, so that a report can be written at any time.

    Args:
        out_file: where to; written atomically.
        job: the resolved specification.
        steps: step → output directory, or None. Known are ``PrepareDataset``, ``ExploreData``, ``Train`` or
            ``Train[…]`` (one or more), ``TrainTPCResponse``, ``Benchmark``, ``ExplainModel``, ``MeasureSpread`` and
            ``ExportModel``; the provenance of others is listed too.
        extra: further facts for the header, name → text.

    Raises:
        CorruptFile: an output holds a damaged file.
    """
    there = {name: Path(folder) for name, folder in steps.items() if folder is not None}
    content = environment().get_template("report.html.j2").render(
        version=__version__,
        job=job,
        specification=texts.as_yaml(job),
        extra=dict(extra or {}),
        summary=collect.summary(there.get("Benchmark")),
        benchmark=collect.benchmark(there.get("Benchmark")),
        explanation=collect.explanation(there.get("ExplainModel")),
        replicas=collect.replicas(there.get("MeasureSpread")),
        data=collect.data(there.get("PrepareDataset"), there.get("ExploreData")),
        training=collect.training({name: folder for name, folder in there.items() if name.split("[")[0] == "Train"}),
        response=collect.response(there.get("TrainTPCResponse")),
        bundle=collect.bundle(there.get("ExportModel")),
        provenance=collect.provenance(there),
    )  # fmt: skip
    write_text(out_file, content)


def environment() -> jinja2.Environment:
    """Return the environment of templates, with the filters that write values for readers."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pidml.report"),
        autoescape=True,  # whatever comes from a job, a server or a file is text, never markup
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "number": texts.number,
        "percent": texts.percent,
        "decimal": texts.decimal,
        "general": texts.general,
        "bytes": texts.size,
        "duration": texts.duration,
        "setting": texts.setting,
    }
    environment.filters.update(filters)
    return environment
