"""Common ground of the specification's sections."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A section of the specification: unknown keys are refused, values are never coerced from another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


def setting(default: Any, description: str, unit: str = "", **limits: Any) -> Any:
    """Declare a field with its description, unit and limits (``ge``, ``gt``, ``le``, ``lt``, ``min_length`` …)."""
    return Field(default, description=description, json_schema_extra={"unit": unit} if unit else None, **limits)


def _whole_as_float(value: Any) -> Any:
    """YAML and JSON write 1 for 1.0: an integer is a fine float, a boolean or a string is not."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def list_as_tuple(value: Any) -> Any:
    """YAML and JSON have lists where settings are tuples."""
    return tuple(value) if isinstance(value, list) else value


def _one_or_more(value: Any) -> Any:
    """A single number stands for a list of one."""
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else list_as_tuple(value)


def number_as_text(value: Any) -> Any:
    """YAML reads 32 as a number where a setting is one of several words."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Real = Annotated[float, BeforeValidator(_whole_as_float), Field(allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], BeforeValidator(list_as_tuple)]
Reals = Annotated[tuple[Real, ...], BeforeValidator(list_as_tuple)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], BeforeValidator(_one_or_more)]
