"""The job specification itself, and the errors that explain what is wrong with one."""

from __future__ import annotations

import difflib
from functools import reduce
from typing import Any, Self

from pydantic import BaseModel, ValidationError, model_validator

from pidml.errors import NoLabels, SpecError
from pidml.spec.adaptation_section import Adaptation
from pidml.spec.base import Section, setting
from pidml.spec.data_sections import Dataset, Preparation, Producer
from pidml.spec.model_sections import TREES, Evaluation, Export, Model, Training
from pidml.spec.replicas_section import Replicas
from pidml.spec.resources_section import Resources
from pidml.spec.response_section import Response
from pidml.spec.thresholds_section import Thresholds

#: Architectures with one last hidden layer that a discriminator can look at.
ADAPTABLE = ("masked-mlp", "attention", "mlp")


class JobSpec(Section):
    """A training job: everything that decides what comes out, and nothing else."""

    name: str = setting(
        "job", "name for people; stands in the report", min_length=1, max_length=100, pattern=r"^[\w.+ -]+$"
    )
    seed: int = setting(42, "seed of every random choice", ge=0, le=2**31 - 1)
    dataset: Dataset = Dataset()
    producer: Producer = Producer()
    preparation: Preparation = Preparation()
    response: Response = Response()
    model: Model = Model()
    training: Training = Training()
    replicas: Replicas = Replicas()
    adaptation: Adaptation = Adaptation()
    thresholds: Thresholds = Thresholds()
    evaluation: Evaluation = Evaluation()
    export: Export = Export()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _derivable(self) -> Self:
        if self.dataset.derive and self.model.architecture in TREES:
            raise ValueError(
                f"dataset.derive is not possible with model.architecture = {self.model.architecture}, which sees the "
                "features as they are"
            )
        return self

    @model_validator(mode="after")
    def _adaptable(self) -> Self:
        if not self.adaptation.active:
            return self
        if not self.dataset.simulation:
            raise ValueError("adaptation is from simulation to experimental data: dataset.simulation must be true")
        if self.model.architecture not in ADAPTABLE:
            raise ValueError(
                f"adaptation is not possible with model.architecture = {self.model.architecture}; "
                f"allowed: {', '.join(ADAPTABLE)}"
            )
        if self.training.compile:
            raise ValueError("training.compile is not possible with adaptation")
        if self.training.devices > 1:
            raise ValueError(
                f"training.devices = {self.training.devices} is not possible with adaptation, whose discriminator "
                "looks at a batch as a whole; allowed: 1"
            )
        return self

    @model_validator(mode="after")
    def _starts_from_weights(self) -> Self:
        if self.training.warm_start and self.model.architecture in TREES:
            raise ValueError(f"training.warm_start is for networks; {self.model.architecture} starts from nothing")
        return self

    def check_labels(self) -> None:
        """Make sure that the job names simulation: networks are trained and judged on tracks whose species are known.

        Raises:
            NoLabels: the job's files are experimental data.
        """
        if not self.dataset.simulation:
            raise NoLabels(
                f"{self.name}: dataset.simulation is false: experimental data have no labels to train on",
                "train on simulation, and name these files under adaptation.files to adapt to them; steps that need no "
                "labels, such as PrepareDataset, can be run alone",
            )

    def identity(self, path: str) -> Any:
        """Return the setting or section at a dotted path as plain data; of a section, what changes an output."""
        if path == "training":
            return self.training.identity(self.model.architecture)
        *sections, name = path.split(".")
        holder: Any = reduce(getattr, sections, self)
        value = getattr(holder, name)
        return value.identity() if hasattr(value, "identity") else holder.model_dump(mode="json", include={name})[name]

    def unread(self) -> list[str]:
        """Return the settings that were changed but that this architecture does not read, such as ``model.depth``."""
        read = {"model": self.model.read(), "training": self.training.read_by(self.model.architecture)}
        return [
            f"{section}.{name}"
            for section, own in read.items()
            for name, field in type(getattr(self, section)).model_fields.items()
            if name not in own and getattr(getattr(self, section), name) != field.default
        ]

    def of_experimental_files(self) -> JobSpec:
        """Return the job that prepares the files of ``adaptation`` as this one prepares those of ``dataset``.

        Experimental tracks are not known to be primary or not, so that cut is left out.
        """
        files, require = self.adaptation.files, self.adaptation.require
        cuts = self.preparation.cuts.model_copy(update={"primaries_only": False})
        return self.model_copy(
            update={
                "dataset": Dataset(files=files, simulation=False, require=require),
                "preparation": self.preparation.model_copy(update={"cuts": cuts}),
            }
        )


def parse_job(value: Any, source: str) -> JobSpec:
    """Make a :class:`JobSpec` of plain data.

    Args:
        value: a mapping as YAML or JSON gives it.
        source: where it comes from, for error texts (a file name, "task 17").

    Raises:
        SpecError: names each key concerned, the value given and what is allowed.
    """
    if not isinstance(value, dict):
        raise SpecError(f"{source}: a job is a mapping of sections, found {type(value).__name__}", "see `pidml spec`")
    try:
        return JobSpec.model_validate(value)
    except ValidationError as error:
        lines = [explain(problem, JobSpec) for problem in error.errors()]
        raise SpecError(f"{source}: " + "; ".join(lines), "`pidml spec` lists every key with its range") from error


def explain(problem: Any, model: type[BaseModel]) -> str:
    """Say in one line which key is wrong, what was given and what is allowed, from one pydantic error record."""
    path = ".".join(str(part) for part in problem["loc"])
    kind, given = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), _siblings(model, problem["loc"]), n=1)
        return f"unknown key {path!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    text = problem["msg"].removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    if kind == "tuple_type":
        text = _list_needed(given)
    elif kind in ("too_short", "too_long"):
        text = f"list{text[text.index(' ') :]}"  # pydantic calls it a tuple, or a value
    if isinstance(given, (dict, list, tuple)) or kind == "missing":
        return f"{path}: {text}" if path else text
    return f"{path} = {shortened(given)}: {text}"


def _list_needed(given: Any) -> str:
    """Say that a setting is a list, and how a single value is written as one."""
    single = isinstance(given, (str, int, float)) and not isinstance(given, bool)
    return "a list is needed" + (f": [{str(given)[:80]}]" if single and str(given) else "")


def shortened(value: Any, length: int = 80) -> str:
    """Return a value as text that fits an error message, however long it is."""
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"


def _siblings(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names allowed where the unknown key stands."""
    current: Any = model
    for part in location[:-1]:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
    return list(getattr(current, "model_fields", {}))
