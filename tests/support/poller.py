"""The poller in this process, with the stand-in for law."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from support.machine import Machine, fake_command

from pidml.poller.loop import poll
from pidml.poller.surroundings import Counts


def with_own_store(machine: Machine, store: Path) -> Machine:
    """Return the machine with another store and an empty queue."""
    with machine.client() as client:
        while client.claim(os.urandom(8).hex()) is not None:
            pass
    return replace(machine, settings=replace(machine.settings, store=store))


def run(machine: Machine, **options: bool) -> Counts:
    return poll(machine.settings, **({"drain": True} | options), command=fake_command)


def failure_text(machine: Machine, task: int) -> str:
    return dict(machine.results(task))[f"failure_task{task}.log"]
