"""Logging of the poller: plain lines or one JSON object per line, and never the machine's key."""

from __future__ import annotations

import json
import logging
import sys
import time

from pidml.secret import Secret

_hidden: list[Secret] = []


def hide(secret: Secret) -> None:
    """Mask ``secret`` in every line logged from now on."""
    if secret not in _hidden:
        _hidden.append(secret)


def _masked(text: str) -> str:
    for secret in _hidden:
        text = secret.mask(text)
    return text


class MaskingFormatter(logging.Formatter):
    """Formats records as plain lines without secrets; the last net should one ever reach a message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return _masked(super().format(record))


class JsonFormatter(MaskingFormatter):
    """Formats records as one JSON object per line: ``time``, ``level``, ``logger``, ``text`` and, if any, ``trace``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        value = {
            "time": self.formatTime(record, self.datefmt),
            "level": record.levelname,
            "logger": record.name,
            "text": record.getMessage(),
        }
        if record.exc_info:
            value["trace"] = self.formatException(record.exc_info)
        return _masked(json.dumps(value, ensure_ascii=False))


def configure_logging(json_lines: bool = False, level: int = logging.INFO) -> None:
    """Log to standard error.

    Args:
        json_lines: one JSON object per line instead of plain lines.
        level: least level that is shown.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_lines else MaskingFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
