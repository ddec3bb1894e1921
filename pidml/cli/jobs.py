"""Commands about jobs: run, compare, ls, get, spec."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pidml.cli.results import print_comparison, print_outputs, print_results

if TYPE_CHECKING:
    from pidml.store import Store


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run)
    app.command()(compare)
    app.command(name="ls")(list_outputs)
    app.command()(get)
    app.command()(gc)
    app.command()(spec)


def run(context: typer.Context, job: str = typer.Argument(help="Preset, or path of a YAML or JSON job file.")) -> None:
    """Run a whole job (`law run TrainingJob --job JOB`); further options go to law, such as `--print-status -1`."""
    from pidml.spec import load_job

    load_job(job)  # says what is wrong with a job in one line, before law starts
    code, store = _law("TrainingJob", ["--job", job, *context.args])
    if code == 0 and not context.args:
        print_results(store, job)
    raise typer.Exit(code)


def compare(
    jobs: list[str] = typer.Argument(help="Presets, job files or task numbers; the first gives the test tracks."),
) -> None:
    """Compare the models of jobs on the same test tracks (`law run CompareModels`); what is missing is made first."""
    from pidml.spec import load_job

    for job in jobs:
        if not job.isdigit():
            load_job(job)
    code, store = _law("CompareModels", ["--jobs", ",".join(jobs)])
    if code == 0:
        print_comparison(store, jobs)
    raise typer.Exit(code)


def _law(task: str, arguments: list[str]) -> tuple[int, Store]:
    """Run a task of law; return its exit code and the store that it ran in."""
    from pidml.fetch import FetchOptions
    from pidml.law_command import law_command, law_environment
    from pidml.settings import Settings
    from pidml.store import Store

    settings = Settings.load()
    store = Store(settings.store)
    # what .env says about this machine holds here too; its key is of no use to a job of one's own
    values = {key: value for key, value in settings.environment().items() if key.startswith("PIDML_") and value}
    FetchOptions.from_env(os.environ | values)  # law would show a traceback
    command = law_command(task, arguments)
    return subprocess.run(command, env=law_environment(store.root, os.environ | values), check=False).returncode, store


def list_outputs(job: str = typer.Argument("", help="Preset, job file or task number; all jobs if left out.")) -> None:
    """List jobs, or the outputs of a job: step, digest, state, size."""
    store = _store()
    if job:
        print_outputs(store, job)
        return
    names = store.jobs()
    typer.echo("\n".join(names) if names else f"no job has run in {store.root} yet: try `pidml run sandbox`")


def get(
    job: str = typer.Argument(help="Preset, job file or task number."),
    step: str = typer.Argument(help="Step, for example ExportModel."),
    out: Path | None = typer.Option(
        None, "--out", help="Copy the output to this new folder; without it, its path is printed."
    ),
) -> None:
    """Find (or copy) the output of a step of a job."""
    from pidml.errors import StoreError, UnknownJob

    store = _store()
    index = store.read_index(job)
    if step not in index:
        raise UnknownJob(f"no step is called {step!r}", f"steps: {', '.join(index)}")
    folders = [store.output(step, digest) for digest in index[step]]
    if absent := [str(folder) for folder in folders if not folder.is_dir()]:
        raise StoreError(f"not made yet: {', '.join(absent)}", f"run it: law run {step} --job {job}")
    if out is None:
        typer.echo("\n".join(map(str, folders)))
        return
    if out.exists():
        raise StoreError(f"{out} exists already", "name a folder that does not exist")
    for folder in folders:
        shutil.copytree(folder, out if len(folders) == 1 else out / folder.name)
    typer.echo(out)


def gc(
    drop: list[str] = typer.Option([], "--drop", help="A job that is not to be kept; may be given several times."),
    tasks_older_than: float | None = typer.Option(
        None,
        "--tasks-older-than",
        metavar="DAYS",
        min=0,
        help="Drop tasks of the server that ended so long ago, if it has all of their results.",
    ),
    min_age_hours: float = typer.Option(24.0, help="Leave alone what changed more recently: it may be in the making."),
    yes: bool = typer.Option(False, "--yes", help="Remove; without it, only show."),
) -> None:
    """Show (or remove) what no kept job needs: outputs of earlier settings, of dropped jobs, leftovers of kills."""
    from rich.filesize import decimal

    from pidml.gc import check_quiet, find_garbage

    store = _store()
    if yes:
        check_quiet(store)
    older = None if tasks_older_than is None else tasks_older_than * 86_400
    found = find_garbage(store, drop, min_age_hours * 3600, older)
    for each in found:
        typer.echo(f"{decimal(each.size):>10}  {each.path}  ({each.reason})")
        if yes:
            each.remove()
    total = decimal(sum(each.size for each in found))
    typer.echo(
        f"{total} in {len(found)} places {'removed' if yes else 'can go: repeat with --yes'}" if found else "nothing"
    )


def spec(
    schema: bool = typer.Option(False, "--json-schema", help="Print the JSON Schema instead."),
) -> None:
    """Print every key of a job with its default, unit, range and meaning."""
    from pidml.spec import JobSpec
    from pidml.spec.describe import describe

    if schema:
        typer.echo(json.dumps(JobSpec.model_json_schema(), indent=2))
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for line in describe(JobSpec):
        unit = f" {line.unit}" if line.unit else ""
        console.print(f"[bold]{line.key}[/] = {escape(line.default)}{unit}   [cyan]{escape(line.allowed)}[/]")
        console.print(f"    [dim]{escape(line.meaning)}[/]")


def _store() -> Store:
    from pidml.settings import Settings
    from pidml.store import Store

    return Store(Settings.load().store)
