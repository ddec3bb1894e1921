"""Commands that make things to try: simulate, sandbox."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer


class Format(StrEnum):
    """What kind of file a simulation writes."""

    ao2d = "ao2d"
    tracks = "tracks"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(simulate)
    app.command()(sandbox)


def simulate(
    tracks: int = typer.Option(100_000, help="Selected tracks in all files together."),
    files: int = typer.Option(1, help="Number of files."),
    fmt: Format = typer.Option(Format.ao2d, "--format", help="ao2d: raw tables; tracks: track tables."),
    seed: int = typer.Option(1, help="Seed; the same seed gives the same files."),
    frames: int = typer.Option(3, help="DF_ directories per file."),
    out: Path = typer.Option(Path("simulated"), help="Folder to write to."),
) -> None:
    """Simulate collisions and detector response; the exact best identification of these tracks is known."""
    from pidml.simulation.files import simulate_files

    for path in simulate_files(out, tracks, files, fmt.value, seed, frames):
        typer.echo(path)


def sandbox(
    directory: Path = typer.Option(Path(".sandbox"), help="Where server, GRID and machine live."),
    keep_serving: bool = typer.Option(False, help="Leave the server running at the end, to look at its pages."),
) -> None:
    """Everything at once: server, machine, simulated GRID, one queued task, the poller; ends with the results."""
    from pidml.cli.sandbox import run_sandbox

    raise typer.Exit(run_sandbox(directory, keep_serving=keep_serving))
