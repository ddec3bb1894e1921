"""Profiles of sites: where the steps of a job run and what that place wants to be told."""

from __future__ import annotations

import configparser
import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from pidml import resources
from pidml.batch.asking import parse_resources
from pidml.errors import ConfigError

#: Section of a law configuration file that holds a profile.
SECTION = "pidml_site"
WORKFLOWS = ("local", "htcondor", "slurm")
#: CERN's classes of running time: name → h.
JOB_FLAVOURS = {
    "espresso": 1 / 3, "microcentury": 1.0, "longlunch": 2.0, "workday": 8.0, "tomorrow": 24.0, "testmatch": 72.0,
    "nextweek": 168.0,
}  # fmt: skip
#: Instead of one of them: the shortest that fits the time of a job.
SHORTEST = "shortest"


@dataclass(frozen=True)
class Site:
    """A profile.

    Args:
        name: for messages; by default the name of its file.
        workflow: ``local``, ``htcondor`` or ``slurm``.
        partition: Slurm partition; empty takes the default one.
        account: Slurm account, or accounting group of HTCondor.
        qos: Slurm quality of service.
        job_flavour: one of CERN's classes of running time, such as ``workday``, or ``shortest`` for the shortest that
            fits; empty asks for the time itself.
        gpu_partition: Slurm partition of jobs that ask for GPUs; empty takes ``partition``.
        options: further options, one per line: ``--constraint=avx512`` for Slurm, ``requirements = …`` for HTCondor.
        setup: shell commands that a job runs before anything else, such as ``source /cvmfs/…/setup.sh``.
        shared: folders that every worker sees; if given, the store must lie below one of them.
        submit_dir: folder for job files and HTCondor's own log where the scheduler cannot read the store; empty takes
            the store.
        resources: what jobs ask for where the job file says nothing, one per line: ``train.gpus = 1``. A server's tasks
            say nothing about resources.
        on_demand: ``yes`` if the pool makes slots as jobs ask for them: then what it has now is no limit (HTCondor).
        max_memory: largest memory of a job in GB, 0 for no limit.
        max_time: largest time of a job in h, 0 for no limit.
    """

    name: str = "local"
    workflow: str = "local"
    partition: str = ""
    account: str = ""
    qos: str = ""
    job_flavour: str = ""
    gpu_partition: str = ""
    options: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    submit_dir: str = ""
    resources: tuple[str, ...] = ()
    on_demand: str = ""
    max_memory: float = 0.0
    max_time: float = 0.0

    @classmethod
    def from_options(cls, options: Mapping[str, str], source: str) -> Site:
        """Make a profile of the options in a section ``[pidml_site]``.

        Args:
            options: name → text; texts of several lines are lists.
            source: where they come from, for error texts.

        Raises:
            ConfigError: an unknown option, or a value that is not allowed.
        """
        names = [field.name for field in fields(cls)]
        for key in options:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise ConfigError(
                    f"{source}: unknown option {key!r} in [{SECTION}]", f"{hint}allowed: {', '.join(names)}"
                )
        values: dict[str, object] = {}
        for field in fields(cls):
            if field.name in options:
                values[field.name] = _value(field.name, field.default, options[field.name].strip(), source)
        site = cls(**values)  # type: ignore[arg-type]
        if site.workflow not in WORKFLOWS:
            raise ConfigError(f"{source}: workflow = {site.workflow!r}", f"allowed: {', '.join(WORKFLOWS)}")
        if site.on_demand not in ("", "no", "yes"):
            raise ConfigError(f"{source}: on_demand = {site.on_demand!r}", "allowed: yes, no")
        if site.job_flavour not in ("", SHORTEST, *JOB_FLAVOURS):
            allowed = ", ".join([SHORTEST, *JOB_FLAVOURS])
            raise ConfigError(f"{source}: job_flavour = {site.job_flavour!r}", f"allowed: {allowed}, or nothing")
        parse_resources(site.resources, source)
        return site


def _value(name: str, default: object, text: str, source: str) -> object:
    if re.fullmatch(r"\$\{?\w+\}?", text):
        text = ""  # a variable of the environment that is not set
    if isinstance(default, tuple):
        lines = text.replace(":", "\n") if name == "shared" else text
        return tuple(line.strip() for line in lines.splitlines() if line.strip())
    if isinstance(default, float):
        try:
            number = float(text or 0)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise ConfigError(f"{source}: {name} = {text!r} is not a number ≥ 0", f"correct [{SECTION}]")
        return number
    return text


def profile_names() -> list[str]:
    """Return the names of the profiles that come with the package."""
    return sorted(path.stem for path in resources.configs("sites").glob("*.cfg"))


def profile_file(name: str) -> Path:
    """Return the file of a profile, given by its name or by the path of a ``.cfg`` file.

    Raises:
        ConfigError: there is no such profile; says which there are.
    """
    path = Path(name).expanduser() if name.endswith(".cfg") else resources.configs("sites") / f"{name}.cfg"
    if ("/" in name and not name.endswith(".cfg")) or not path.is_file():
        near = difflib.get_close_matches(name, profile_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else "was its folder moved? " if path.is_absolute() else ""
        raise ConfigError(
            f"there is no profile {name!r} (PIDML_SITE)",
            f"{hint}profiles: {', '.join(profile_names())}; or give the path of a .cfg file",
        )
    return path.absolute()


def read_profile(name: str, environ: Mapping[str, str] = os.environ) -> Site:
    """Read a profile by its name or path; variables of ``environ`` in its values are expanded.

    Raises:
        ConfigError: it does not exist, cannot be parsed, or holds something that is not allowed.
    """
    path = profile_file(name)
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", "it is an INI file as law reads it") from error
    if not parser.has_section(SECTION):
        raise ConfigError(f"{path}: no section [{SECTION}]", f"start from a profile: {', '.join(profile_names())}")
    options = {key: _expanded(value or "", environ) for key, value in parser.items(SECTION)}
    return Site.from_options({"name": path.stem} | options, str(path))


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with ``$NAME`` and ``${NAME}`` replaced where the variable is set."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda match: environ.get(match[1] or match[2], match[0]), text)
