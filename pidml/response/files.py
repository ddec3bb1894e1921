"""A learned response on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pidml.atomic import atomic_file
from pidml.data.prepared import Scaling
from pidml.errors import TrainingError
from pidml.models import Inputs
from pidml.models.base import Derived
from pidml.response.network import KIND, TpcResponse

RESPONSE_FILE = "response.pt"
_FORMAT = 1


def save_response(directory: Path, response: TpcResponse, scaling: Scaling) -> None:
    """Write ``response.pt``: constants, hypotheses, features and scaling; plain values that load safely."""
    content = {"format": _FORMAT, "scaling": _scaling(scaling), "response": response.state()}
    with atomic_file(directory / RESPONSE_FILE) as temporary:
        torch.save(content, temporary)


def load_response(directory: Path | str, scaling: Scaling) -> TpcResponse:
    """Read what :func:`save_response` wrote, for features scaled by ``scaling``.

    Raises:
        TrainingError: there is no response, or it was learned on other features or another scaling.
    """
    path = Path(directory) / RESPONSE_FILE
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f"{path}: no TPC response: {error}", "remove the directory and rerun TrainTPCResponse"
        ) from error
    if content.get("format") != _FORMAT:
        raise TrainingError(
            f"{path}: response of format {content.get('format')}, known is {_FORMAT}", "rerun TrainTPCResponse"
        )
    if content["scaling"] != _scaling(scaling):
        raise TrainingError(f"{path}: learned on other features or another scaling", "learn it on the same data")
    return TpcResponse.of(content["response"], Inputs.of(scaling))


def restore(states: Sequence[dict[str, Any]], inputs: Inputs) -> tuple[Derived, ...]:
    """Return the derived columns that :meth:`Derived.state` has described.

    Raises:
        TrainingError: of a kind that is not known.
    """
    for state in states:
        if state["kind"] != KIND:
            raise TrainingError(f"derived columns of kind {state['kind']!r}: known is {KIND}", "rerun Train")
    return tuple(TpcResponse.of(state, inputs) for state in states)


def state_digest(state: dict[str, Any]) -> str:
    """Return a digest over what :meth:`Derived.state` returned."""
    values = state["values"]
    result = hashlib.sha256(repr([(key, state[key]) for key in sorted(state) if key != "values"]).encode())
    for name in sorted(values):
        result.update(name.encode() + values[name].contiguous().numpy().tobytes())
    return result.hexdigest()


def _scaling(scaling: Scaling) -> dict[str, Any]:
    return {"features": list(scaling.names), "mean": scaling.mean.tolist(), "std": scaling.std.tolist()}
