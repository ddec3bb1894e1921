"""The poller: asks a server for tasks, runs each as a law process, and reports; it survives everything it can.

Nothing about training is in it. :func:`poll` runs it, :func:`status` tells how it and its jobs are.
"""

from __future__ import annotations

from pidml.poller.status import MachineStatus, status
from pidml.settings import Settings


def poll(settings: Settings, *, once: bool = False, drain: bool = False) -> int:
    """Run the poller and return its exit code; see :func:`pidml.poller.loop.poll`.

    Returns:
        0 after a stop signal or when everything went well; 1 if (with ``once`` or ``drain``) a job failed; 3 if a job's
        end could not be reported yet (the next start does it).
    """
    from pidml.poller.loop import poll as run

    counts = run(settings, once=once, drain=drain, reload=Settings.load)
    if counts.unsent:
        return 3
    return 1 if counts.failed and (once or drain) else 0


__all__ = ["MachineStatus", "poll", "status"]
