"""Where a job comes from: a preset's name, a YAML or JSON file, or a claimed task's number."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from pidml import resources
from pidml.errors import SpecError, UnknownJob
from pidml.spec.data_sections import InputFile
from pidml.spec.job import JobSpec, parse_job

MAX_FILE_BYTES = 10_000_000


def preset_names() -> list[str]:
    """Return the names of the presets in ``configs/jobs``."""
    return sorted(path.stem for path in resources.configs("jobs").glob("*.yaml"))


def load_job(name: str) -> JobSpec:
    """Return the job called ``name``: a preset, or the path of a YAML or JSON file.

    Raises:
        UnknownJob: there is neither a preset nor a file of that name.
        SpecError: the job does not follow the specification.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        path = resources.configs("jobs") / f"{name}.yaml"
        if "/" in name or not path.is_file():
            raise UnknownJob(f"no preset is called {name!r}", _where_jobs_come_from())
    elif not path.is_file():
        raise UnknownJob(f"no job file {name!r} in {Path.cwd()}", _where_jobs_come_from())
    job = parse_job(read_mapping(path), str(name))
    return _beside(job, path.parent.absolute())


def _beside(job: JobSpec, folder: Path) -> JobSpec:
    """Relative paths of input files and weights are meant from the job file's folder, wherever the command is run."""

    def absolute(file: InputFile) -> InputFile:
        relative = not urlsplit(file.path).scheme and not file.path.startswith("/")
        return file.model_copy(update={"path": str(folder / file.path)}) if relative else file

    sections = {
        name: section.model_copy(update={"files": tuple(absolute(file) for file in section.files)})
        for name, section in (("dataset", job.dataset), ("adaptation", job.adaptation))
    }
    weights = job.training.warm_start
    training = job.training.model_copy(update={"warm_start": str(folder / weights) if weights else ""})
    return job.model_copy(update={**sections, "training": training})


def read_mapping(path: Path) -> Any:
    """Return the content of a YAML or JSON file as plain data.

    Raises:
        SpecError: not readable, too large or not well-formed; duplicate keys are errors too.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SpecError(f"{path}: larger than {MAX_FILE_BYTES} bytes", "a job file is a page of settings")
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=_unique_keys)
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - derives from SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not well-formed: {error}", "mend the file") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key given twice: the first value would be ignored silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        pairs = [(self.construct_object(key, deep=True), value) for key, value in node.value]
        _unique_keys(pairs)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3 as text because it lacks a dot; people write learning rates that way.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    keys = [key for key, _ in pairs]
    if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
        raise ValueError(f"key given twice: {', '.join(twice)}")
    return dict(pairs)


def _where_jobs_come_from() -> str:
    return (
        f"presets: {', '.join(preset_names())}; or give the path of a .yaml or .json file (`pidml spec` lists the keys)"
    )
