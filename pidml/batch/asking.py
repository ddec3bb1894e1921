"""What the jobs of a step ask for: what the job file says, then what the profile says, then the defaults."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import yaml
from pydantic import ValidationError

from pidml.errors import ConfigError
from pidml.spec.resources_section import Resources, StepResources

Given = dict[str, dict[str, object]]


@cache
def parse_resources(lines: tuple[str, ...], source: str) -> Given:
    """Return step → setting → value of the profile's lines ``step.setting = value``.

    Args:
        lines: such as ``train.gpus = 1``; units and limits are those of the specification's section ``resources``.
        source: the profile, for error texts.

    Raises:
        ConfigError: a line that is not of this form, an unknown step or setting, or a value out of range.

    >>> parse_resources(("train.gpus = 1", "train.memory = 16"), "my.cfg")
    {'train': {'gpus': 1, 'memory': 16}}
    """
    given: Given = {}
    for line in lines:
        name, equals, text = line.partition("=")
        step, dot, setting = name.strip().partition(".")
        if not (equals and dot):
            raise ConfigError(f"{source}: resources: {line!r}", "write lines such as: train.gpus = 1")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        given.setdefault(step, {})[setting] = value
    try:
        Resources.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{source}: resources: {_first(error)}", _allowed(error)) from error
    return given


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    return f"{name}: unknown" if first["type"] == "extra_forbidden" else f"{name} = {first['input']!r}: {first['msg']}"


def _allowed(error: ValidationError) -> str:
    place = error.errors()[0]["loc"]
    steps = Resources.model_fields
    if len(place) > 1 and str(place[0]) in steps:
        return f"settings: {_listed(StepResources.model_fields)}; `pidml spec` explains them"
    return f"steps: {_listed(steps)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def resources_of(job: Resources, step: str, profile: Given) -> StepResources:
    """Return what one job of a step asks for.

    Args:
        job: section ``resources`` of the specification; what a person wrote there counts.
        step: ``download``, ``produce`` or ``train``.
        profile: what the profile says, see :func:`parse_resources`; counts where the job says nothing.
    """
    said: StepResources = getattr(job, step)
    return type(said)(**{**profile.get(step, {}), **said.model_dump(exclude_unset=True)})
