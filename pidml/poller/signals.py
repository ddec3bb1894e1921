"""Signals as events that a single-threaded program can wait for together with processes."""

from __future__ import annotations

import os
import select
import signal
import time
from types import FrameType, TracebackType
from typing import Any

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Counts SIGTERM and SIGINT (stop) and notes SIGHUP (reload) for the length of a ``with`` block.

    Attributes:
        stops: how many stop signals have come.
        reload: whether SIGHUP came; set to false by whoever obeys it.
    """

    def __init__(self) -> None:
        self.stops = 0
        self.reload = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._handle) for number in _HANDLED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reading)
        os.close(self._writing)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.stops += 1

    def wait(self, seconds: float, *descriptors: int) -> bool:
        """Wait until a descriptor is readable, a signal comes or ``seconds`` have passed; tell whether to stop."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._reading, *descriptors], [], [], left)
            if self._reading in ready:
                os.read(self._reading, 4096)
            if ready or left == 0.0:
                return self.stops > 0

    def pause(self, seconds: float) -> bool:
        """Wait ``seconds``, or less if a signal comes; tell whether to stop, without waiting if so."""
        return self.stops > 0 or self.wait(seconds)
