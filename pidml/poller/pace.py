"""How fast the poller asks: growing pauses after failures, slow where only a person can help."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pidml.alicetraint.client import AliceTraINTClient
from pidml.errors import AnswerLost, ServerError, ServerRefused
from pidml.settings import Settings

_LONGEST_BACKOFF = 300.0
_FAILURES_BEFORE_PAUSE = 3
_LONGEST_FAILURE_PAUSE = 3600.0


@dataclass
class Pace:
    """How long to wait before the server is asked again."""

    failures_in_a_row: int = 0
    server_errors: int = 0

    def after_error(self, error: ServerError, settings: Settings, client: AliceTraINTClient) -> float:
        """Return the pause after a failed request: patient where only a person can help, growing otherwise."""
        by_person = isinstance(error, ServerRefused) or (isinstance(error, AnswerLost) and not client.repeats_claims)
        if by_person:
            return settings.limits.slow_wait
        self.server_errors += 1
        longest = min(_LONGEST_BACKOFF, max(settings.limits.wait, settings.limits.slow_wait))
        backoff = min(longest, 2.0 ** min(self.server_errors, 20) * 0.5) * random.uniform(0.5, 1.0)
        return max(backoff, error.retry_after or 0.0)

    def before_claim(self) -> float:
        """Return the pause after jobs that failed one after another: the machine is at fault, spare the queue."""
        too_many = self.failures_in_a_row - _FAILURES_BEFORE_PAUSE
        return 0.0 if too_many < 0 else min(60.0 * 2.0 ** min(too_many, 20), _LONGEST_FAILURE_PAUSE)
