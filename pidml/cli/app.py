"""The application object that the command modules register with."""

from __future__ import annotations

import typer

from pidml import __version__

app = typer.Typer(
    name="pidml",
    help="Train particle-identification networks for ALICE as law workflows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"pidml {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Options of every command."""
