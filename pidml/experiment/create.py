"""Making an experiment folder: job file, site profile, ``.env``, ``run.sh`` and README."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pidml import resources
from pidml.atomic import atomic_directory
from pidml.batch.site import profile_file, profile_names, read_profile
from pidml.errors import ConfigError, UnknownJob
from pidml.experiment.jobfile import commented_job
from pidml.spec import load_job, preset_names
from pidml.spec.load import read_mapping

#: Characters that law's configuration, ``.env`` files or the shell would not take as they are.
_REFUSED = set("'\"`$\\,{}%#&;\n\t")
_SHARED = "folders that every worker sees, separated by colons; the store is checked against them (empty: not checked)"
#: Variables that each profile wants to be told: name → what it is.
_KEYS = {
    "local": {},
    "slurm": {
        "PIDML_PARTITION": "Slurm partition (empty: the cluster's default)",
        "PIDML_GPU_PARTITION": "partition of jobs that ask for GPUs (empty: the same)",
        "PIDML_ACCOUNT": "Slurm account (empty: yours)",
        "PIDML_QOS": "quality of service (empty: none)",
        "PIDML_SHARED": _SHARED,
    },
    "lxplus": {"PIDML_ACCOUNT": "accounting group, for example group_u_ALICE.u_z2 (empty: yours)"},
    "farm": {"PIDML_ACCOUNT": "accounting group (empty: none)", "PIDML_SHARED": _SHARED},
}


def create_experiment(directory: Path, profile: str = "local", preset: str = "attention") -> Path:
    """Make an experiment folder; all of it or nothing.

    Args:
        directory: the folder; it must not exist or be empty.
        profile: name of a site profile that comes with the package.
        preset: name of a job preset to start from.

    Returns:
        The absolute path of the folder.

    Raises:
        ConfigError: the folder is not empty, its path cannot stand in configuration files, or no such profile.
        UnknownJob: there is no such preset.
        StoreError, DiskFull: the folder cannot be written.
    """
    directory = directory.expanduser().absolute()
    _check(directory, profile, preset)
    text = {
        "directory": directory,
        "root": resources.ROOT,
        "law_config": resources.law_config(),
        "index": resources.configs("law-index"),
        "profile": profile,
        "profile_text": profile_file(profile).read_text(encoding="utf-8").strip(),
        "preset": preset,
        "keys": _KEYS.get(profile, {}),
        "python_bin": Path(sys.executable).parent,
        "quoted": shlex.quote,
    }
    templates = Environment(
        loader=PackageLoader("pidml.experiment"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML
    )
    preset_file = resources.configs("jobs") / f"{preset}.yaml"
    title = f"A training job, made from the preset {preset}. It runs as it is, over simulated files; name your own."
    with atomic_directory(directory) as folder:
        (folder / "job.yaml").write_text(commented_job(read_mapping(preset_file), title), encoding="utf-8")
        for name, mode in (("law.cfg", 0o644), (".env", 0o600), ("run.sh", 0o755), ("README.md", 0o644)):
            _write(folder / name, templates.get_template(f"{name}.j2").render(text), mode)
        load_job(str(folder / "job.yaml"))
        read_profile(str(folder / "law.cfg"))
    return directory


def _check(directory: Path, profile: str, preset: str) -> None:
    if profile not in profile_names():
        raise ConfigError(f"there is no profile {profile!r}", f"profiles: {', '.join(profile_names())}")
    if preset not in preset_names():
        raise UnknownJob(f"no preset is called {preset!r}", f"presets: {', '.join(preset_names())}")
    if bad := sorted(_REFUSED & set(str(directory))):
        raise ConfigError(
            f"{directory}: the path holds {' '.join(map(repr, bad))}", "choose a folder with a plain name"
        )
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise ConfigError(f"{directory} exists and is not a folder", "name a folder that does not exist")
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty", "name a folder that does not exist; nothing is overwritten")


def _write(path: Path, text: str, mode: int) -> None:
    """Write a file that never has wider permissions than ``mode``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    path.chmod(mode)
