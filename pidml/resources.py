"""Where the files that come with the package lie: presets, profiles, scripts and ``law.cfg``."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
#: The checkout's root, or the folder inside an installed wheel that holds the same files.
ROOT = _PACKAGE.parent if (_PACKAGE.parent / "law.cfg").is_file() else _PACKAGE / "_resources"


def configs(kind: str) -> Path:
    """Return the folder of configurations of a kind: ``jobs``, ``sites`` or ``producer``."""
    return ROOT / "configs" / kind


def scripts() -> Path:
    """Return the folder of shell scripts that run outside Python."""
    return ROOT / "scripts"


def law_config() -> Path:
    """Return the path of ``law.cfg``."""
    return ROOT / "law.cfg"
