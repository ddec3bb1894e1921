"""Numbers of the machine protocol: what a task's status and a result's file type may be."""

from __future__ import annotations

import re
from enum import IntEnum


class TaskStatus(IntEnum):
    """Where a training task stands; the numbers are the protocol's."""

    FAILED = 0
    QUEUED = 1
    TRAINING = 2
    BENCHMARKING = 3
    COMPLETED = 4
    UPLOADED = 5


class FileType(IntEnum):
    """What an uploaded result is; the numbers are the protocol's."""

    LOG = 0
    IMAGE = 1
    ONNX = 2


MACHINE_STATUSES = (TaskStatus.FAILED, TaskStatus.TRAINING, TaskStatus.BENCHMARKING, TaskStatus.COMPLETED)
"""What a machine may set. Queued is set by queueing and Uploaded by the page, never by a machine."""

FINISHED_STATUSES = (TaskStatus.FAILED, TaskStatus.COMPLETED, TaskStatus.UPLOADED)
"""After these nothing is expected to change by itself."""

_BASE_9 = re.compile(r"[0-8]{1,18}", re.ASCII)


def parse_file_type(text: str) -> FileType | None:
    """Return the file type written in ``text``, or ``None`` if it is none.

    The field is read in **base 9**, as AliceTraINT does: ``"9"`` is no number at all and ``"10"`` is nine.

    >>> parse_file_type("2"), parse_file_type("9"), parse_file_type("10")
    (<FileType.ONNX: 2>, None, None)
    """
    if not _BASE_9.fullmatch(text):
        return None
    number = int(text, 9)
    return FileType(number) if number in set(FileType) else None
