"""The command that applies a bundle to files."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pidml.apply import ApplySummary


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(apply)


def apply(
    files: list[Path] = typer.Argument(help="Track tables (any O2pidtracks… tree) or AO2D files.", show_default=False),
    bundle: Path = typer.Option(..., "--bundle", help="Folder of the bundle, as ExportModel makes it."),
    out: Path = typer.Option(..., "--out", help="File to write: *.root or *.parquet."),
    fmt: str = typer.Option("", "--format", help="root or parquet; default: what the name of the output says."),
    threads: int = typer.Option(0, min=0, help="Threads that the networks run on; 0: all cores."),
    threshold: list[str] = typer.Option(
        [], "--threshold", help="SPECIES=CERTAINTY from which a track is accepted, instead of the bundle's."
    ),
    field: float = typer.Option(0.5, min=-1, max=1, help="Solenoid field in T, with its sign; for AO2D files."),
    force: bool = typer.Option(False, "--force", help="Replace the output if it exists."),
) -> None:
    """Write scores and decisions of a bundle's networks for every track of files."""
    from pidml.apply import apply_bundle
    from pidml.apply.thresholds import parse_thresholds, replaced, replaced_per_pt
    from pidml.export import Bundle

    # a batch system's or a service's way to end a program: leave nothing unfinished behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    thresholds = parse_thresholds(threshold)
    opened = Bundle.open(bundle, threads)
    with _shown_progress() as progress:
        summary = apply_bundle(
            opened, files, out, fmt=fmt, thresholds=thresholds, magnetic_field=field, overwrite=force, progress=progress
        )
    used = replaced(opened.thresholds, thresholds), replaced_per_pt(opened.pt_table, thresholds)
    _print_summary(summary, *used, len(files), out)


@contextmanager
def _shown_progress() -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows rows done of all rows: as a bar on a terminal, otherwise a line for each tenth."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from pidml.apply.progress import lines

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lines(lambda text: typer.echo(text, err=True))
        return
    numbers = TextColumn("{task.description}")
    with Progress(BarColumn(), TaskProgressColumn(), numbers, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("opening the files", total=None)
        yield lambda done, total: bar.update(
            task, completed=done, total=total, description=f"{done:,} of {total:,} tracks read"
        )


def _print_summary(
    summary: ApplySummary, thresholds: dict[str, float], per_pt: dict[str, Any] | None, files: int, out: Path
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    from pidml.apply.thresholds import outside_bins, spans

    def share(number: int) -> str:
        return f"{number / summary.tracks:.2%}" if summary.tracks else ""

    table = Table("accepted as", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("threshold", "tracks", "share"):
        table.add_column(heading, justify="right")
    used = spans(thresholds, per_pt)
    for name, number in summary.accepted.items():
        lowest, highest = (f"{each:.4f}" for each in used[name])
        table.add_row(name, lowest if lowest == highest else f"{lowest}–{highest}", f"{number:,}", share(number))
    table.add_section()
    table.add_row("no species", "", f"{summary.none:,}", share(summary.none))
    table.add_row("several", "", f"{summary.several:,}", share(summary.several))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    if per_pt is not None:
        edges = per_pt["pt_edges"]
        rest = outside_bins(thresholds, per_pt)
        outside = ", ".join(f"{name} {rest[name]:.4f}" for name in summary.accepted)
        console.print(
            f"bins      thresholds depend on pT: {len(edges) - 1} bins from {edges[0]:g} to {edges[-1]:g} GeV/c; "
            f"outside them {outside}"
        )
    rejected = summary.rows_read - summary.tracks
    selected = f", selected from {summary.rows_read:,} in AO2D tables" if rejected else ""
    console.print(f"tracks    {summary.tracks:,} of {files} file{'s' if files > 1 else ''}{selected}")
    missing = ", ".join(f"{name} {share(number)}" for name, number in summary.missing.items() if number)
    console.print(f"detectors {missing or 'no tracks'}")
    for line in summary.warnings:
        console.print(f"[yellow]warning[/]   {line}")
    rate = summary.tracks / max(summary.seconds, 1e-3)
    console.print(f"written   {out} ({decimal(out.stat().st_size)}) in {summary.seconds:.1f} s, {rate:,.0f} tracks/s")
