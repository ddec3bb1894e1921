"""Goes on where memory runs out: batches are taken in more and smaller parts, the optimiser's steps stay the same."""

from __future__ import annotations

import errno
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from pidml.errors import OutOfMemory, PidmlError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
#: What allocators say that have no error class of their own: PyTorch's for the processor's memory, and XGBoost's.
_TEXTS = ("can't allocate memory", "not enough memory", "bad_alloc", "bad allocation", "Memory allocation error")


@dataclass(frozen=True)
class Limit:
    """How far batches may be divided.

    Attributes:
        most: returns the largest number of parts; asked once it is needed.
        hint: what helps when that is not enough.
    """

    most: Callable[[], int]
    hint: str = "use a machine with more memory, or a smaller network"


def memory_ran_out(error: BaseException) -> bool:
    """Tell whether an error says that memory, of a GPU or of the machine, did not suffice."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError, OutOfMemory)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, (RuntimeError, ValueError)) and any(text in str(error) for text in _TEXTS)


@contextmanager
def out_of_memory(what: str, hint: str) -> Iterator[None]:
    """Name the error if memory runs out.

    Args:
        what: what was being done, for example "while 100 trees grew".
        hint: what helps.

    Raises:
        OutOfMemory: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not memory_ran_out(error):
            raise
        raise OutOfMemory(f"memory ran out {what}: {_told(error)}", hint) from error


def with_smaller_parts(attempt: Callable[[int], Result], split: int, limit: Limit) -> Result:
    """Call ``attempt`` with a number of parts per batch; double it, and call again, as often as memory runs out.

    Args:
        attempt: takes the number of parts; must be able to go on where its last call broke off.
        split: parts to begin with, as far as the limit allows.
        limit: how far to go.

    Raises:
        OutOfMemory: the most parts are still too large.
    """
    if split > 1:
        split = min(split, limit.most())
    while True:
        try:
            return attempt(split)
        except Exception as error:
            if not memory_ran_out(error):
                raise
            text = _told(error)
        # Out of the handler, whose traceback keeps everything alive that had been allocated.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if 2 * split > limit.most():
            parts = f"batches in {split} parts" if split > 1 else "whole batches"
            raise OutOfMemory(f"memory ran out with {parts}, which cannot be divided further: {text}", limit.hint)
        split *= 2
        logger.warning("memory ran out (%s): each batch is now taken in %d parts", text, split)


def _told(error: BaseException) -> str:
    """Return the first line of what an error says."""
    said = str(error.what if isinstance(error, PidmlError) else error)
    return (said.splitlines() or [type(error).__name__])[0]
