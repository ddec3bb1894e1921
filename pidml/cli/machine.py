"""Commands about machines: poll, status, doctor, mock, serve."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(poll)
    app.command()(status)
    app.command()(doctor)
    app.command()(mock)
    app.command()(serve)


def poll(
    once: bool = typer.Option(False, "--once", help="Finish what was claimed, run at most one new job, then end."),
    drain: bool = typer.Option(False, "--drain", help="Run jobs until none is queued, then end."),
    json_logs: bool = typer.Option(False, "--json-logs", help="Log one JSON object per line."),
) -> None:
    """Poll the server for queued jobs and run them; configured by .env or the environment."""
    from pidml.batch.site import read_profile
    from pidml.poller import poll as run_poller
    from pidml.poller.logs import configure_logging
    from pidml.settings import Settings

    configure_logging(json_lines=json_logs)
    settings = Settings.load()
    for note in settings.notes:
        logging.getLogger("pidml").warning("%s", note)
    if settings.site:
        read_profile(settings.site)  # a profile that is absent or wrong is this machine's fault, not its jobs'
    raise typer.Exit(run_poller(settings, once=once, drain=drain))


def status() -> None:
    """Show this machine and its jobs: step, progress, age."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from pidml.poller import status as read_status
    from pidml.settings import Settings

    found = read_status(Settings.load())
    console = Console(soft_wrap=True)
    console.print(found.headline)
    for warning in found.warnings:
        console.print(f"[yellow]warning[/] {warning}", highlight=False)
    if not found.jobs:
        console.print("no job was claimed into this store yet")
        return
    table = Table("task", "state", "step", "progress", "age", "detail", box=SIMPLE_HEAD, pad_edge=False)
    for job in found.jobs:
        progress = "" if job.progress is None else f"{job.progress:.0%}"
        table.add_row(str(job.task_id), job.state, job.step, progress, job.age, job.detail)
    console.print(table)


def serve(
    data_dir: Path = typer.Option(Path("server"), help="Database and uploaded files."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; others than loopback need PIDML_SERVER_TOKEN."),
    port: int = typer.Option(8080, help="TCP port; 0 takes a free one."),
    grid_dir: Path | None = typer.Option(None, help="Folder served as a GRID below /grid/."),
) -> None:
    """Run the embedded AliceTraINT-compatible server with its pages."""
    from pidml.server.main import serve as run_server
    from pidml.server.settings import ServerSettings

    settings = ServerSettings(
        data_dir=data_dir,
        host=host,
        port=port,
        grid_dir=grid_dir,
        admin_token=os.environ.get("PIDML_SERVER_TOKEN") or None,
    )
    run_server(settings, typer.echo)


def doctor() -> None:
    """Check what this machine needs: clock, server, key, certificates, tools, disk, GPU, scheduler; claims nothing."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pidml.poller.doctor import doctor as look
    from pidml.settings import Settings

    colours = {"ok": "green", "warning": "yellow", "failed": "bold red"}
    checks = look(Settings.load())
    table = Table("check", "outcome", "found, and what to do", box=SIMPLE_HEAD, pad_edge=False)
    for check in checks:
        advice = f"\n→ {check.advice}" if check.advice else ""
        outcome = f"[{colours[check.outcome]}]{check.outcome}[/]"
        table.add_row(check.name, outcome, Text(f"{check.found}{advice}"))
    Console(highlight=False).print(table)
    raise typer.Exit(1 if any(check.outcome == "failed" for check in checks) else 0)


def mock() -> None:
    """Claim one queued task and answer it with canned files, to test nothing but the connection."""
    from pidml.poller.logs import configure_logging
    from pidml.poller.mock import mock as answer
    from pidml.settings import Settings

    configure_logging()
    raise typer.Exit(answer(Settings.load()))
