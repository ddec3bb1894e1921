"""Goes on where memory runs out: batches are taken in more and smaller parts, the optimiser's steps stay the same."""

from __future__ import annotations

import errno
import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from pidml.errors import OutOfMemory

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
#: What PyTorch's allocator for the processor's memory says; it has no error class of its own.
_TEXTS = ("can't allocate memory", "not enough memory")


def memory_ran_out(error: BaseException) -> bool:
    """Tell whether an error says that memory, of a GPU or of the machine, did not suffice."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError, OutOfMemory)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def with_smaller_parts(attempt: Callable[[int], Result], split: int, batch_rows: int) -> Result:
    """Call ``attempt`` with a number of parts per batch; double it, and call again, as often as memory runs out.

    Args:
        attempt: takes the number of parts; must be able to go on where its last call broke off.
        split: parts to begin with.
        batch_rows: tracks of a batch in one process: no more parts than that.

    Raises:
        OutOfMemory: parts of one track are too large.
    """
    while True:
        try:
            return attempt(split)
        except Exception as error:
            if not memory_ran_out(error):
                raise
            text = (str(error).splitlines() or [type(error).__name__])[0]
        # Out of the handler, whose traceback keeps everything alive that had been allocated.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if 2 * split > batch_rows:
            raise OutOfMemory(
                f"memory ran out with batches of {batch_rows} tracks in {split} parts: {text}",
                "use a machine with more memory, or a smaller network",
            )
        split *= 2
        logger.warning("memory ran out (%s): each batch is now taken in %d parts", text, split)
