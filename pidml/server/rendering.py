"""How pages show times, sizes and settings; the templates' environment."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pidml.server.protocol import FileType, TaskStatus

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def moment_text(moment: float) -> str:
    """Return a time as UTC, to the second.

    >>> moment_text(0)
    '1970-01-01 00:00:00'
    """
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units.

    >>> duration_text(4), duration_text(75), duration_text(7260), duration_text(200_000)
    ('4 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def size_text(size: int) -> str:
    """Return a size with a decimal prefix.

    >>> size_text(999), size_text(1_500), size_text(3_143_213_210)
    ('999 B', '1.5 kB', '3.1 GB')
    """
    if size < 1000:
        return f"{size} B"
    power = next((power for power in (1, 2, 3) if size < 999.95 * 1000**power), 4)
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def status_name(status: TaskStatus) -> str:
    """Return a status as people read it: ``Training``."""
    return status.name.capitalize()


def value_text(value: Any) -> str:
    """Return a configuration value as JSON writes it."""
    return json.dumps(value, ensure_ascii=False, indent=1 if isinstance(value, dict) else None)


@cache
def environment() -> Environment:
    """Return the templates' environment; everything that a template shows is escaped."""
    templates = Environment(
        loader=PackageLoader("pidml.server"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        moment=moment_text, duration=duration_text, size=size_text, status_name=status_name, json_value=value_text
    )
    templates.globals.update(TaskStatus=TaskStatus, FileType=FileType)
    return templates
