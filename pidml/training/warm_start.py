"""Starts a training from weights that an earlier one left."""

from __future__ import annotations

import pickle
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
        WarmStartError: a file cannot be read, or none of them fits: other architecture, features, species, objective.
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
    network.load_state_dict(state)


def _differences(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    there, here = (
        {**each, **{f"model.{key}": value for key, value in each["model"].items()}} for each in (given, wanted)
    )
    keys = sorted({*there, *here} - {"model"})
    return [f"{key} is {there.get(key)} there, {here.get(key)} here" for key in keys if there.get(key) != here.get(key)]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the description and the weights in a ``model.pt`` or a checkpoint."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if CHECKPOINT_KEY in content:
            return content[CHECKPOINT_KEY], content["callbacks"]["Recorder"]["best_state"]
        own = Model.model_validate(content["model"]).identity()
        derived = [each["kind"] for each in content["derived"]]
        given = description(own, content["objective"], content["species"], content["features"], derived)
        return given, content["state"]
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise WarmStartError(
            f"training.warm_start: {path} holds no weights that can be read: {error}", "name another, or train it again"
        ) from error
