"""Progress in plain lines, for logs."""

from __future__ import annotations

from collections.abc import Callable


def lines(say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return a function to be told of rows done and rows in all, which says so whenever a tenth is completed.

    >>> tell = lines(print)
    >>> for done in (5, 12, 19, 20, 100):
    ...     tell(done, 100)
    12 of 100 tracks read (12 %)
    20 of 100 tracks read (20 %)
    100 of 100 tracks read (100 %)
    """
    said = 0

    def tell(done: int, total: int) -> None:
        nonlocal said
        tenths = 10 * done // total if total else 0
        if tenths > said:
            said = tenths
            say(f"{done:,} of {total:,} tracks read ({100 * done // total} %)")

    return tell
