"""Making the next item in a thread while the present one is being used."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Generator[T]) -> Generator[T]:
    """Yield ``items`` while a thread of its own already makes the next one.

    An exception raised while an item is made is raised where the item is asked for. Close the generator (for example
    with :func:`contextlib.closing`) if you may leave it early: that waits for the thread and closes ``items``.
    """
    end = object()
    with closing(items), ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        pending = pool.submit(next, items, end)
        while (item := pending.result()) is not end:
            pending = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
