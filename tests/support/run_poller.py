"""The real poller as a process, with the stand-in for law: python run_poller.py [once|drain]."""

import sys

from support.machine import fake_command

from pidml.poller.logs import configure_logging
from pidml.poller.loop import poll
from pidml.settings import Settings

if __name__ == "__main__":
    configure_logging()
    counts = poll(
        Settings.load(dotenv=None),
        once="once" in sys.argv,
        drain="drain" in sys.argv,
        command=fake_command,
        reload=lambda: Settings.load(dotenv=None),
    )
    sys.exit(3 if counts.unsent else 0)
