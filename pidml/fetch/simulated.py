"""Files of the sandbox GRID, which are simulated on the spot."""

from __future__ import annotations

from pidml.atomic import temporary_sibling
from pidml.fetch.transfer import Request, Transfer
from pidml.simulation.sandbox import write_sandbox_file


def transfer(request: Request) -> Transfer:
    """Simulate the file beside the destination.

    Raises:
        InputMissing: the sandbox GRID has no such file.
        DiskFull: the disk cannot hold it.
    """
    path = temporary_sibling(request.partial.destination)
    write_sandbox_file(request.source.address, path)
    return Transfer(path)
