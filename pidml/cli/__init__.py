"""The command line: ``pidml COMMAND``. Each command is a thin layer over a library function."""

from __future__ import annotations

import sys

from pidml.errors import PidmlError


def main() -> None:
    """Run the command line; an error made on purpose is shown in one piece, without a traceback."""
    from pidml.cli import apply, init, jobs, machine, make
    from pidml.cli.app import app

    for module in (apply, init, jobs, machine, make):
        module.register(app)
    try:
        app()
    except PidmlError as error:
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error[/] {_escaped(str(error))}")
        sys.exit(1)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
