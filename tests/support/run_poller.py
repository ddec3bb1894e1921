"""The real poller as a process, with the stand-in for law: python run_poller.py [once|drain].

CLOCK_JUMPS=1 lets the wall clock jump by up to ten years every other time it is looked at.
"""

import os
import random
import sys
import time

from support.machine import fake_command

from pidml.poller.logs import configure_logging
from pidml.poller.loop import poll
from pidml.settings import Settings

TEN_YEARS = 10 * 365 * 86_400.0


def jumping(clock):
    offset = 0.0

    def now():
        nonlocal offset
        if random.random() < 0.5:
            offset = random.uniform(-TEN_YEARS, TEN_YEARS)
        return clock() + offset

    return now


if __name__ == "__main__":
    if os.environ.get("CLOCK_JUMPS"):
        time.time = jumping(time.time)
    configure_logging()
    counts = poll(
        Settings.load(dotenv=None),
        once="once" in sys.argv,
        drain="drain" in sys.argv,
        command=fake_command,
        reload=lambda: Settings.load(dotenv=None),
    )
    sys.exit(3 if counts.unsent else 0)
