"""The command that makes an experiment folder."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(init)


def init(
    directory: Path = typer.Argument(help="Folder to make; it must not exist or be empty."),
    profile: str = typer.Option("local", help="Where the steps run: local, slurm, lxplus or farm."),
    preset: str = typer.Option("attention", help="Job preset to start from, see configs/jobs."),
) -> None:
    """Make an experiment folder: job file with comments, site profile, .env, run.sh, README."""
    from pidml.experiment import create_experiment

    made = create_experiment(directory, profile, preset)
    typer.echo(f"{made}\nnext: edit job.yaml and .env, then {made}/run.sh --print-status -1")
