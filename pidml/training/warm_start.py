"""Starts a training from weights that an earlier one left."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pidml.errors import WarmStartError
from pidml.models import Network
from pidml.spec import JobSpec
from pidml.spec.model_sections import Model
from pidml.spec.weight_files import weight_files
from pidml.training.objective import Objective

#: Key of :func:`description` in a Lightning checkpoint.
CHECKPOINT_KEY = "pidml"
#: Differences of weights that are told, at most.
_TOLD = 4
_GIVE = "name a model.pt, a last.ckpt, a bundle, or an output directory of Train, whose network is the same"


def description(
    model: Mapping[str, Any], objective: Objective, species: Sequence[str], features: Sequence[str],
    derived: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Return what weights must have in common with a network that starts from them, as plain values.

    Args:
        model: identity of the section ``model``; the dropout is left out, weights do not depend on it.
        objective: what the network was trained for.
        species: in the order of the outputs.
        features: in the order of the inputs.
        derived: kinds of derived features.
    """
    kept = {key: value for key, value in model.items() if key not in ("dropout", "heads")}
    given = {"species": list(species), "features": list(features), "dataset.derive": list(derived)}
    return {"model": kept, "training.objective": objective, **given}


def start_from(network: Network, job: JobSpec, species: Sequence[str], features: Sequence[str]) -> None:
    """Give a network the weights that ``training.warm_start`` names, if it names any.

    Where several files lie there (separate networks), it is the one for these species.

    Raises:
        WarmStartError: a file cannot be read, or none of them fits: other architecture, features, species, objective,
            or weights of other names or shapes.
    """
    paths = weight_files(job.training.warm_start)
    if not paths:
        return
    wanted = description(job.model.identity(), job.training.objective, species, features, job.dataset.derive)
    found = [(path, *_read(path)) for path in paths]
    path, given, state = next((each for each in found if each[1]["species"] == list(species)), found[0])
    if differing := _differences(given, wanted):
        raise WarmStartError(
            f"training.warm_start: {path} does not fit: {'; '.join(differing)}",
            "name weights of the same network, or change the job to match them",
        )
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise WarmStartError(
            f"training.warm_start: the weights in {path} do not fit: {_mismatch(state, network)}",
            "name weights that this version of pidml trained, of the same network",
        ) from error


def _mismatch(state: Mapping[str, Any], network: Network) -> str:
    """Say in which weights a file and a network differ: which are there or here alone, or have another shape."""
    there, here = (
        {name: tuple(value.shape) if isinstance(value, torch.Tensor) else value for name, value in each.items()}
        for each in (state, network.state_dict())
    )
    parts = [f"{name} is not there" for name in here if name not in there]
    parts += [f"{name} is there alone" for name in there if name not in here]
    parts += [
        f"{name} is {there[name]} there, {shape} here"
        for name, shape in here.items()
        if name in there and there[name] != shape
    ]
    more = f"; and {len(parts) - _TOLD} more" if len(parts) > _TOLD else ""
    return "; ".join(parts[:_TOLD]) + more


def _differences(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    there, here = (
        {**each, **{f"model.{key}": value for key, value in each["model"].items()}} for each in (given, wanted)
    )
    keys = sorted({*there, *here} - {"model"})
    return [f"{key} is {there.get(key)} there, {here.get(key)} here" for key in keys if there.get(key) != here.get(key)]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the description and the weights in a ``model.pt`` or a checkpoint.

    Raises:
        WarmStartError: the file cannot be read, or is neither.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that others wrote
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WarmStartError(f"training.warm_start: {path} cannot be read: {error}", _GIVE) from error
    except Exception as error:  # any, if the bytes are something else; PyTorch's text is about its safety switches
        raise WarmStartError(
            f"training.warm_start: {path} holds no weights that can be read: it is not a file that PyTorch wrote, or "
            "is damaged, or holds objects other than plain values",
            _GIVE,
        ) from error
    try:
        if CHECKPOINT_KEY in content:
            given, state = content[CHECKPOINT_KEY], content["callbacks"]["Recorder"]["best_state"]
        else:
            own = Model.model_validate(content["model"]).identity()
            derived = [each["kind"] for each in content["derived"]]
            given = description(own, content["objective"], content["species"], content["features"], derived)
            state = content["state"]
        if not (isinstance(given["species"], list) and isinstance(given["model"], dict) and isinstance(state, dict)):
            raise TypeError("a description and weights")
    except (RuntimeError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WarmStartError(
            f"training.warm_start: {path} holds no weights that can be read: PyTorch wrote it, but it is neither the "
            "model nor the checkpoint of a network that pidml trained",
            _GIVE,
        ) from error
    return given, state
