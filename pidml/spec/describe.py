"""The specification as text: one line per key, with default, unit, range and meaning."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_BOUNDS = {
    "ge": "≥ {}",
    "gt": "> {}",
    "le": "≤ {}",
    "lt": "< {}",
    "min_length": "length ≥ {}",
    "max_length": "length ≤ {}",
}


@dataclass(frozen=True)
class KeyDescription:
    """One key of the specification, all as text."""

    key: str
    default: str
    unit: str
    allowed: str
    meaning: str


def describe(model: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None) -> Iterator[KeyDescription]:
    """Yield a description of every key of ``model``, sections first unfolded, in the order of the specification.

    Args:
        model: the specification or a section of it.
        prefix: what stands before the keys.
        defaults: the section as it is by default where it is used; without it the defaults of its class are shown.
    """
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        default = field.default if defaults is None else getattr(defaults, name)
        section = _section(field)
        if section is not None:
            yield from describe(section, f"{key}.", default if isinstance(default, section) else None)
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        yield KeyDescription(key, _shown(default), str(extra.get("unit", "")), _allowed(field), field.description or "")


def _section(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        shown = ", ".join(map(str, value[:3])) + (f", … ({len(value)})" if len(value) > 3 else "")
        return f"[{shown}]"
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _allowed(field: FieldInfo) -> str:
    bounds = [
        text.format(getattr(limit, name))
        for limit in field.metadata
        for name, text in _BOUNDS.items()
        if getattr(limit, name, None) is not None
    ]
    return " and ".join(bounds) if bounds else _type_text(field.annotation)


def _type_text(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_text(get_args(annotation)[0])
    if origin is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if origin in (Union, types.UnionType):
        return " or ".join(_type_text(part) for part in get_args(annotation) if part is not type(None))
    if origin is tuple:
        return f"list of {_type_text(get_args(annotation)[0])}"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "anything"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
