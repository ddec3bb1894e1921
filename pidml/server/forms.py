"""The form that queues a task: its fields, read and checked; made from the field definitions of the deployed form."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pidml.errors import SpecError
from pidml.server.aod import aod_file
from pidml.server.store import checked_name
from pidml.spec.deployed_fields import DEPLOYED_FIELDS, DeployedField

PREFIX = "configuration-"
MAX_FILES = 10_000
MAX_LFN_LENGTH = 1024
SCHEMES = ("alien", "root", "https", "http", "s3", "file")

_UINT = re.compile(r"\d{1,9}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,3})?", re.ASCII)
_ADDRESS = re.compile(rf"/[^/]|({'|'.join(SCHEMES)})://.", re.ASCII)


@dataclass
class QueueForm:
    """What a person filled in, as text, and what is wrong with it by field name."""

    name: str = ""
    files: str = ""
    grid_files: tuple[str, ...] = ()
    is_one: bool = False
    is_data: bool = False
    subsample: str = "0"
    values: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> QueueForm:
        """Return the form as first shown, with the deployed defaults."""
        return cls(values={entry.key: _shown(entry.default) for entry in DEPLOYED_FIELDS})

    @classmethod
    def read(cls, pairs: Sequence[tuple[str, str]]) -> QueueForm:
        """Return the form with what a browser sent; a box that is not ticked is not sent."""
        sent = dict(pairs)
        return cls(
            name=sent.get("name", ""),
            files=sent.get("files", ""),
            grid_files=tuple(value for key, value in pairs if key == "grid-file"),
            is_one="is-one" in sent,
            is_data="is-data" in sent,
            subsample=sent.get("subsample", "0"),
            values={entry.key: sent.get(PREFIX + entry.key, "") for entry in DEPLOYED_FIELDS},
        )

    def check(self, size_of: Callable[[str], int | None]) -> dict[str, Any] | None:
        """Return the arguments of ``ServerStore.queue_task``, or ``None`` with the reasons in ``errors``.

        Args:
            size_of: gives the size in bytes of a file on the embedded GRID, ``None`` for any other.
        """
        self.errors = {}
        arguments = {
            "name": self._name(),
            "files": [aod_file(lfn, size_of(lfn)) for lfn in self._files()],
            "configuration": self._configuration(),
            "is_one": self.is_one,
            "is_data": self.is_data,
            "subsample_event_count": self._subsample(),
        }
        return None if self.errors else arguments

    def _name(self) -> str:
        try:
            return checked_name(self.name, "the name")
        except SpecError as error:
            self.errors["name"] = f"{error.what}; {error.hint}"
            return ""

    def _files(self) -> list[str]:
        lines = [line.strip() for line in self.files.splitlines()]
        files = [*self.grid_files, *(line for line in lines if line and line not in self.grid_files)]
        if not files or len(files) > MAX_FILES:
            self.errors["files"] = f"choose or write 1 to {MAX_FILES} AO2D files, one on each line"
            return []
        for number, lfn in enumerate(files):
            reason = _refusal(lfn) or ("is there twice" if lfn in files[:number] else "")
            if reason:
                self.errors["files"] = f"{lfn[:100]!r} {reason}"
                return []
        return files

    def _subsample(self) -> int:
        text = self.subsample.strip()
        if not _UINT.fullmatch(text):
            self.errors["subsample"] = "give a whole number of events, 0 for all"
            return 0
        return int(text)

    def _configuration(self) -> dict[str, bool | int | float]:
        configuration: dict[str, bool | int | float] = {}
        for entry in DEPLOYED_FIELDS:
            value = _value(entry, self.values[entry.key].strip())
            if value is None:
                kind = "whole number" if entry.type == "uint" else "number"
                self.errors[entry.key] = f"give a {kind} from {entry.minimum} to {entry.maximum}"
            else:
                configuration[entry.key] = value
        if {"d_model", "num_heads"} <= configuration.keys() and configuration["d_model"] % configuration["num_heads"]:
            self.errors["d_model"] = f"give a multiple of the number of heads, {configuration['num_heads']}"
        return configuration


def _shown(value: bool | int | float) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    return str(value)


def _value(entry: DeployedField, text: str) -> bool | int | float | None:
    """Return a field's value, or ``None`` if the text is of another type or out of range."""
    if entry.type == "bool":
        return text == "on"
    if not (_UINT if entry.type == "uint" else _FLOAT).fullmatch(text):
        return None
    value = int(text) if entry.type == "uint" else float(text)
    assert entry.minimum is not None
    assert entry.maximum is not None
    return value if math.isfinite(value) and entry.minimum <= value <= entry.maximum else None


def _refusal(lfn: str) -> str:
    """Return why a file's address cannot be queued, or nothing."""
    if len(lfn) > MAX_LFN_LENGTH or not lfn.isprintable():
        return f"is longer than {MAX_LFN_LENGTH} characters or not printable"
    if ".." in lfn.split("/"):
        return "goes through a parent directory"
    return "" if _ADDRESS.match(lfn) else f"is neither a path that starts with / nor an address of {', '.join(SCHEMES)}"
