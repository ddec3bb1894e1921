"""The documentation says what the code says: keys of a job, error codes, what steps read, links that lead somewhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipelines
import tasks
from pidml import errors, resources, settings
from pidml.errors import PidmlError
from pidml.fetch import options
from pidml.spec import JobSpec
from pidml.spec.describe import KeyDescription, describe
from pidml.species import TARGET_NAMES
from tasks.framework import JobTask
from tasks.steps import STEPS

DOCS = resources.ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TASKS: dict[str, type[JobTask]] = {name: getattr(tasks, name) for name in tasks.__all__} | {
    "CompareModels": pipelines.CompareModels
}
CODES = sorted({each.code for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, PidmlError)})
_LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")


def row(line: KeyDescription) -> str:
    """Return the row of the table in docs/job-file.md that describes a key."""
    default = f"{line.default} {line.unit}".strip()
    allowed, meaning = (text.replace("|", "\\|") for text in (line.allowed, line.meaning))
    return f"| `{line.key}` | {default} | {allowed} | {meaning} |"


def page_of(task: str) -> Path:
    """Return where the page of a task lies: docs/steps/prepare-dataset.md for PrepareDataset."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", task)
    return DOCS / "steps" / f"{words.lower()}.md"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made on code hosting sites."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("line", list(describe(JobSpec)), ids=lambda line: line.key)
def test_every_key_of_a_job_is_described_as_it_is(line: KeyDescription) -> None:
    rows = (DOCS / "job-file.md").read_text(encoding="utf-8").splitlines()
    assert row(line) in rows, f"docs/job-file.md lacks this row:\n{row(line)}"


def test_no_key_is_described_that_does_not_exist() -> None:
    rows = re.findall(r"^\| `([a-z_0-9.]+)` \| .* \| .* \| .+ \|$", (DOCS / "job-file.md").read_text(), re.MULTILINE)
    flat_keys_table = {row for row in rows if "." not in row}
    known = {line.key for line in describe(JobSpec)}
    assert {row for row in rows if "." in row} <= known
    assert {"name", "seed"} <= flat_keys_table


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_is_described(code: str) -> None:
    assert f"\n| {code} |" in (DOCS / "errors.md").read_text(encoding="utf-8")


def test_the_error_page_names_the_class_of_each_code() -> None:
    rows = re.findall(r"^\| (P\d{3}) \| (\w+) \|", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {code: getattr(errors, name).code for code, name in rows} == {code: code for code, _ in rows}
    assert len(rows) == len(CODES)


def test_the_steps_of_a_job_are_among_the_tasks() -> None:
    assert {step.__name__ for step in STEPS} | {"UploadResults", "ReportStatus"} <= set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_page_that_says_what_it_reads(task: str) -> None:
    page = page_of(task)
    assert page.is_file(), f"{page} is missing"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {task}\n")
    found = re.findall(r"^Reads: (.+)$", text, re.MULTILINE)
    assert len(found) == 1, f"{page} needs one line like: Reads: `model`, `seed`"
    reads = re.findall(r"`([^`]+)`", found[0]) if TASKS[task].reads else []
    assert reads == list(TASKS[task].reads), f"{page}: `reads` of the class is {TASKS[task].reads}"


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_on_the_map(task: str) -> None:
    assert f"(steps/{page_of(task).name})" in (DOCS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: no heading {anchor!r} in {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_lines_are_wrapped(page: Path) -> None:
    lines = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize(
    ("module", "page"),
    [(settings, "training-machine.md"), (options, "steps/download-aod.md")],
    ids=["machine", "fetch"],
)
def test_every_environment_variable_is_described(module: Any, page: str) -> None:
    names = set(re.findall(r'"((?:PIDML|MACHINE|ALICETRAINT)_[A-Z_]+)"', inspect.getsource(module)))
    assert names
    text = (DOCS / page).read_text(encoding="utf-8")
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_the_bundle_is_used_from_python_as_its_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from support.prepared_data import write_prepared
    from support.small_training import small_job

    from pidml.export import Bundle, export_bundle
    from pidml.training import train

    prepared = write_prepared(tmp_path / "data", (4000, 2000, 1000))
    (tmp_path / "trained").mkdir()
    job = small_job(max_epochs=1)
    train(prepared, job, TARGET_NAMES, tmp_path / "work", tmp_path / "trained")
    export_bundle([tmp_path / "trained"], prepared, job, tmp_path / "bundle")
    snippet = re.findall(r"^```python\n(.*?)^```$", (DOCS / "bundle.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    names: dict[str, Any] = {"raw": np.asarray(prepared.split("test").features)}
    monkeypatch.chdir(tmp_path / "bundle")
    exec(snippet, names)
    bundle = Bundle.open(tmp_path / "bundle")
    certainty = bundle.predict(names["raw"])
    assert np.abs(names["certainty"] - certainty).max() < 1e-6
    assert np.array_equal(names["accepted"], bundle.accepted(names["certainty"]))
    assert names["species"] == list(TARGET_NAMES)
