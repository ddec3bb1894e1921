"""What luigi's worker says on the terminal: failures in one line, since the step has already explained them."""

from __future__ import annotations

import logging
import re
import sys
from types import TracebackType

from pidml.errors import PidmlError

_MARK = "_pidml_shown"
#: A traceback that luigi wrote into a message, up to the text of an error made on purpose.
_TRACEBACK = re.compile(
    r"Traceback \(most recent call last\):.*^pidml\.errors\.\w+: (?=\[P\d{3}\])", re.DOTALL | re.MULTILINE
)

#: What luigi says of an error outside of every task.
_UNCAUGHT = "Uncaught exception in luigi"


def shown_once(error: BaseException) -> None:
    """Remember that an error was explained, so that its traceback is not printed again."""
    setattr(error, _MARK, True)


def was_shown(error: BaseException) -> bool:
    """Tell whether :func:`shown_once` was told of the error."""
    return bool(getattr(error, _MARK, False))


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and (was_shown(error) or isinstance(error, PidmlError)):
        record.exc_info = record.exc_text = None
        if not was_shown(error):
            where = record.getMessage()
            record.msg, record.args = str(error) if where == _UNCAUGHT else f"{where}: {error}", ()
    message = record.getMessage()
    if _TRACEBACK.search(message):
        record.msg, record.args = _TRACEBACK.sub("", message), ()
    return True


def _say_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, PidmlError):
        print(error, file=sys.stderr)  # noqa: T201 - in the place of a traceback
    else:
        sys.__excepthook__(kind, error, trace)


def configure() -> None:
    """Give luigi's logger a handler that prints warnings and errors, and show errors made on purpose in one line.

    Done when the tasks are imported. What is wrong with the configuration shows up here and there in luigi and law, or
    while tasks are imported.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _say_uncaught
    logger = logging.getLogger("luigi-interface")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        handler.addFilter(_without_traceback)
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
