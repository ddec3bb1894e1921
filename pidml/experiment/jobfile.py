"""A job file with comments: what a preset sets, and everything else that could be set, with its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pidml.spec import JobSpec
from pidml.spec.describe import describe


def commented_job(given: Mapping[str, Any], title: str) -> str:
    """Return a job file in YAML.

    Args:
        given: what the job sets, as plain data; it stands there as it is.
        title: first line, a comment.

    Returns:
        The file. Keys that ``given`` does not set are there as comments with their defaults; each key has its meaning
        beside it.
    """
    about = {line.key: line for line in describe(JobSpec)}
    meanings = {key: f"{line.meaning}{f' [{line.unit}]' if line.unit else ''}" for key, line in about.items()}
    head = [f"# {title}", "# Keys behind # have their defaults; `pidml spec` also says what is allowed.", ""]
    return "\n".join([*head, *_section(JobSpec(), given, meanings, "", 0, commented=False)]) + "\n"


def _section(
    defaults: BaseModel, given: Mapping[str, Any], meanings: Mapping[str, str], prefix: str, depth: int, commented: bool
) -> Iterator[str]:
    """Yield the lines of a section; all of them are comments if none of its keys is set."""
    for name, field in type(defaults).model_fields.items():
        key, here = f"{prefix}{name}", name in given
        mark = "" if here and not commented else "# "
        space = "  " * depth
        value = getattr(defaults, name)
        if isinstance(value, BaseModel):
            if depth == 0:
                yield ""
            yield f"{mark}{space}{name}:"
            yield from _section(value, given.get(name, {}), meanings, f"{key}.", depth + 1, commented or not here)
        elif here and isinstance(given[name], list) and len(str(given[name])) > 60:
            yield f"{mark}{space}{name}: # {meanings[key]}"
            yield from (f"{mark}{space}  - {_inline(item)}" for item in given[name])
        else:
            shown = _inline(given[name]) if here else _default(field, value)
            yield f"{mark}{space}{name}: {shown} # {meanings[key]}"


def _default(field: FieldInfo, value: Any) -> str:
    return _inline(list(value) if isinstance(value, tuple) else value) if not field.is_required() else "…"


def _inline(value: Any) -> str:
    """Return a value in YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("...").strip()
