"""How values are written for readers of the report."""

from __future__ import annotations

from typing import Any

import yaml

from pidml.spec import JobSpec

NOTHING = "–"
_MAX_FILES = 200


def number(value: float | None) -> str:
    """Return a whole number with separators.

    >>> number(1234567)
    '1,234,567'
    """
    return NOTHING if value is None else f"{value:,.0f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of digits after the point, or a dash.

    >>> decimal(0.98765), decimal(None)
    ('0.988', '–')
    """
    return NOTHING if value is None else f"{value:.{digits}f}"


def general(value: float | None) -> str:
    """Return a number of any size with about four digits.

    >>> general(14730.4), general(0.0123456), general(0.0)
    ('14,730', '0.01235', '0')
    """
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction in per cent.

    >>> percent(0.98765)
    '98.8 %'
    """
    return NOTHING if value is None else f"{100 * value:.{digits}f} %"


def size(value: float | None) -> str:
    """Return a number of bytes in the unit that suits.

    >>> size(512), size(2048), size(3 * 1024**3)
    ('512 B', '2.0 KiB', '3.0 GiB')
    """
    if value is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Return a time in the unit that suits.

    >>> duration(0.8), duration(75), duration(7260)
    ('0.8 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def setting(value: Any) -> str:
    """Return a setting's value, long lists cut.

    >>> setting(None), setting([64, 64]), setting(True), setting("f1"), setting(["a", "b", "c", "d"])
    ('–', '64, 64', 'true', 'f1', 'a, b, … (4)')
    """
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        short = len(value) <= 3 or all(isinstance(each, (int, float)) for each in value)
        shown = ", ".join(map(setting, value if short else value[:2]))
        return (shown or "none") if short else f"{shown}, … ({len(value)})"
    return str(value)


def as_yaml(job: JobSpec) -> str:
    """Return the resolved specification as YAML, long lists of files cut."""
    content: dict[str, Any] = job.model_dump(mode="json")
    files = content["dataset"]["files"]
    if len(files) > _MAX_FILES:
        content["dataset"]["files"] = [*files[:_MAX_FILES], f"… and {len(files) - _MAX_FILES} more"]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
