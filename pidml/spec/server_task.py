"""A training task as the server gives it, and the job specification made of it.

What comes from a server is hostile until checked: types, ranges, sizes and paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pidml.errors import PathRefused, SpecError
from pidml.spec.data_sections import MAX_PATH_LENGTH
from pidml.spec.deployed_fields import DEPLOYED_FIELDS, DeployedField
from pidml.spec.job import JobSpec, explain, parse_job
from pidml.spec.nested import is_nested, sections_of_nested

MAX_FILES = 100_000
_LFN = re.compile(r"^/alice/(sim|data)/\d{4}/[\w.+-]+(/[\w.+-]+)*/[\w.+-]+\.root$", re.ASCII)
_REMOTE_SCHEMES = ("alien", "root", "https", "http", "s3")

#: Key of the deployed flat configuration → section and field of the job specification.
FLAT_KEYS: dict[str, tuple[str, str]] = {
    "undersample": ("training", "undersample"),
    "bs": ("training", "batch_size"),
    "max_epochs": ("training", "max_epochs"),
    "dropout": ("model", "dropout"),
    "gamma": ("training", "gamma"),
    "patience": ("training", "patience"),
    "patience_threshold": ("training", "min_improvement"),
    "embed_hidden": ("model", "embed_hidden"),
    "d_model": ("model", "d_model"),
    "ff_hidden": ("model", "ff_hidden"),
    "pool_hidden": ("model", "pool_hidden"),
    "num_heads": ("model", "num_heads"),
    "num_blocks": ("model", "num_blocks"),
    "start_lr": ("training", "learning_rate"),
}


class ServerFile(BaseModel):
    """One entry of a task's ``AODFiles``."""

    model_config = ConfigDict(extra="ignore", strict=True)

    Path: str = Field(min_length=1, max_length=MAX_PATH_LENGTH)
    Size: int | None = Field(None, ge=0)


class ServerTask(BaseModel):
    """A task as the server's JSON has it; keys that this version does not know are kept in the verbatim copy only."""

    model_config = ConfigDict(extra="ignore", strict=True)

    ID: int = Field(ge=0)
    AODFiles: list[ServerFile] = Field(min_length=1, max_length=MAX_FILES)
    Configuration: dict[str, Any] = Field(default_factory=dict)
    IsONe: bool = False
    IsData: bool = False
    SubsampleEventCount: int = Field(0, ge=0)


def job_of_task(task: Any, file_roots: Sequence[Path] = (), producer: str = "native") -> JobSpec:
    """Translate a server's task.

    Args:
        task: the task as plain data (JSON already read).
        file_roots: local folders from which the operator lets the server name files; none by default.
        producer: the producer backend of this machine; the server does not know it.

    Raises:
        SpecError: a key is unknown, of the wrong type or out of range, or a combination makes no sense.
        PathRefused: a path is malformed or points where the server may not point.
    """
    try:
        parsed = ServerTask.model_validate(task)
    except ValidationError as error:
        lines = "; ".join(explain(problem, ServerTask) for problem in error.errors())
        raise SpecError(f"the server's task: {lines}", "ask the server's administrator") from error
    for file in parsed.AODFiles:
        check_path(file.Path, file_roots)
    nested = is_nested(parsed.Configuration)
    sections = sections_of_nested(parsed.Configuration) if nested else _sections_of_flat(parsed.Configuration)
    for path in sections.get("adaptation", {}).get("files", ()):
        check_path(path, file_roots)
    value = {
        "name": f"task {parsed.ID}",
        "dataset": {
            "files": [{"path": file.Path, "size": file.Size or None} for file in parsed.AODFiles],
            "simulation": not parsed.IsData,
        },
        "producer": {
            "backend": producer,
            "light_ions": parsed.IsONe,
            "subsample_events": parsed.SubsampleEventCount,
        },
        **sections,
    }
    return parse_job(value, f"task {parsed.ID}")


def _sections_of_flat(configuration: Mapping[str, Any]) -> dict[str, Any]:
    fields = {field.key: field for field in DEPLOYED_FIELDS}
    if unknown := sorted(set(configuration) - set(FLAT_KEYS)):
        shown = ", ".join(repr(key[:40]) for key in unknown[:10])
        raise SpecError(f"Configuration: unknown key {shown}", f"known keys: {', '.join(FLAT_KEYS)}")
    sections: dict[str, Any] = {"model": {"architecture": "attention"}, "training": {}}
    for key, (section, name) in FLAT_KEYS.items():
        if key in configuration:
            sections[section][name] = check_field(fields[key], configuration[key])
    return sections


def check_field(field: DeployedField, value: Any) -> bool | int | float:
    """Return ``value`` if the field allows it.

    Raises:
        SpecError: says the key, the value and what is allowed.
    """
    allowed = f"{field.type} {field.minimum}…{field.maximum}" if field.type != "bool" else "true or false"
    whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    fits = {
        "bool": isinstance(value, bool),
        "uint": whole,
        "float64": isinstance(value, (int, float)) and not isinstance(value, bool),
    }[field.type]
    within = field.type == "bool" or (fits and field.minimum <= value <= field.maximum)
    if not (fits and within):
        shown = repr(value)[:80]
        raise SpecError(
            f"Configuration: {field.key} = {shown}: allowed is {allowed}", "change the task and queue it again"
        )
    return int(value) if field.type == "uint" else value


def check_path(path: str, file_roots: Sequence[Path]) -> None:
    """Refuse a path from a server that is malformed or leads where a server may not point.

    Raises:
        PathRefused: says the path and what is allowed.
    """
    shown = repr(path[:120])
    if "\\" in path or ".." in unquote(path).split("/") or any(ord(c) < 32 or ord(c) == 127 for c in unquote(path)):
        raise PathRefused(
            f"path {shown} from the server is malformed", "allowed: an LFN such as /alice/sim/…/AO2D.root"
        )
    if _LFN.match(path):
        return
    scheme = urlsplit(path).scheme
    if scheme in _REMOTE_SCHEMES:
        return
    local = Path(urlsplit(path).path if scheme == "file" else path)
    if scheme in ("", "file") and local.is_absolute():
        if any(local.resolve().is_relative_to(root.resolve()) for root in file_roots):
            return
        raise PathRefused(
            f"path {shown} from the server is outside the folders that this machine opens to it",
            "the operator can name folders in PIDML_FILE_ROOTS (separated by ':')",
        )
    raise PathRefused(f"path {shown} from the server is no LFN and no known address", f"schemes: {_REMOTE_SCHEMES}")
