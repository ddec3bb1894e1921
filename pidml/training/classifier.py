"""The trained classifier: written, read and applied as one thing, however many networks it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pidml.atomic import atomic_file
from pidml.data.prepared import Scaling
from pidml.data.taught import Taught
from pidml.errors import TrainingError
from pidml.models import Inputs, Network, build
from pidml.models.base import Derived
from pidml.models.hiding import Hiding
from pidml.response.files import restore
from pidml.spec.model_sections import Model
from pidml.species import TARGET_NAMES
from pidml.training.objective import Objective, certainty, output_count

MODEL_FILE = "model.pt"
_FORMAT = 2


class Certainty(nn.Module):
    """A network with its objective: standardised features ``(batch, features)`` to certainties ``(batch, species)``.

    What ``hiding`` takes out of the features does not reach the network.
    """

    def __init__(self, network: Network, objective: Objective, hiding: Hiding | None = None) -> None:
        super().__init__()
        self.network, self.objective = network, objective
        self.hiding = None if hiding is None or hiding.idle else hiding

    def forward(self, standardised: Tensor) -> Tensor:
        """Return certainties in [0, 1]."""
        seen = standardised if self.hiding is None else self.hiding(standardised)
        return certainty(self.objective, self.network(seen))


class Together(nn.Module):
    """Several networks side by side; ``order`` picks and orders the columns of their joint output.

    ``widths`` are the numbers of their columns.
    """

    def __init__(self, parts: Sequence[Certainty], order: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.parts, self.order, self.widths = nn.ModuleList(parts), list(order), list(widths)

    def forward(self, standardised: Tensor) -> Tensor:
        """Return certainties in [0, 1], ``(batch, species)``."""
        joint = torch.cat([part(standardised) for part in self.parts], dim=1) if len(self.parts) > 1 else None
        joint = self.parts[0](standardised) if joint is None else joint
        return joint if self.order == list(range(joint.shape[1])) else joint[:, self.order]

    def alone(self, index: int) -> nn.Module:
        """Return what gives one column, ``(batch, 1)``, without the parts that it does not need."""
        column = self.order[index]
        for part, width in zip(self.parts, self.widths, strict=True):
            if column < width:
                assert isinstance(part, Certainty)
                network = part.network.only(column) if part.objective == "binary" else None
                if network is None:
                    return Column(part, column)
                return Certainty(network, part.objective, part.hiding)
            column -= width
        raise IndexError(index)


class Column(nn.Module):
    """One column of a module's output, as a column: ``(batch, 1)``."""

    def __init__(self, module: nn.Module, index: int) -> None:
        super().__init__()
        self.module, self.index = module, index

    def forward(self, standardised: Tensor) -> Tensor:
        """Return the certainty of one species."""
        joint: Tensor = self.module(standardised)
        return joint[:, self.index : self.index + 1]


@dataclass(frozen=True)
class Classifier:
    """Identifies species from raw features.

    Attributes:
        species: names, in the order of the outputs.
        scaling: how features are standardised, with their names in order.
        module: standardised features (batch, features) → certainties (batch, species).
        evaluation_batch: rows evaluated at once unless said otherwise.
        architecture: name of the networks' architecture.
        parameters: number of trained parameters, all networks together.
        taught: what their training sample taught them.
        notices: what was said of their trainings, once each.
    """

    species: tuple[str, ...]
    scaling: Scaling
    module: Together
    evaluation_batch: int
    architecture: str
    parameters: int
    taught: Taught
    notices: tuple[str, ...] = ()

    @torch.inference_mode()
    def predict(self, features_raw: NDArray[np.float32], batch: int | None = None) -> NDArray[np.float32]:
        """Return certainties, float32 (tracks, species).

        Args:
            features_raw: (tracks, features), raw units, NaN where missing or hidden by momentum limits; memory maps
                are read in pieces.
            batch: rows evaluated at once.
        """
        result = np.empty((len(features_raw), len(self.species)), np.float32)
        size = batch or self.evaluation_batch
        for start in range(0, len(features_raw), size):
            standardised = self.scaling.apply(np.asarray(features_raw[start : start + size], np.float32))
            result[start : start + size] = self.module(torch.from_numpy(standardised)).float().numpy()
        return result


def save_model(
    directory: Path, network: Network, model: Model, objective: Objective, species: Sequence[str], scaling: Scaling,
    taught: Taught, derived: Sequence[Derived] = (), notices: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write ``model.pt``: weights, settings, species, features, scaling, what the training taught, derived columns and
    notices.

    Constants of raw features far from order 1 are there only if there are any. All are plain values that load safely.
    """
    content = {
        "format": _FORMAT,
        "model": model.model_dump(mode="json"),
        "objective": objective,
        "species": list(species),
        "features": list(scaling.names),
        "mean": [float(value) for value in scaling.mean],
        "std": [float(value) for value in scaling.std],
        "standardised": list(scaling.standardised),
        "taught": taught.as_json(),
        "derived": [each.state() for each in derived],
        "notices": list(notices),
        "state": network.state_dict(),
        **({"spread": {name: list(each) for name, each in network.spread.items()}} if network.spread else {}),
    }
    with atomic_file(directory / MODEL_FILE) as temporary:
        torch.save(content, temporary)


def load_classifier(directories: Path | str | Sequence[Path | str]) -> Classifier:
    """Read what training wrote; several directories (separate networks) become one classifier.

    Species come in the order of ``species.TARGETS``.

    Raises:
        TrainingError: a directory holds no model, or the models' features, scaling or species do not fit together.
    """
    if isinstance(directories, (str, Path)):
        directories = [directories]
    contents = [_read(Path(directory)) for directory in directories]
    first = contents[0]
    for directory, content in zip(directories, contents, strict=True):
        keys = ("features", "mean", "std", "standardised", "taught", "spread")
        if any(content.get(key) != first.get(key) for key in keys):
            raise TrainingError(
                f"{directory}: trained on other features or scaling than {directories[0]}",
                "train them on the same data",
            )
    names = [name for content in contents for name in content["species"]]
    if len(set(names)) != len(names):
        raise TrainingError(f"models for the same species given twice: {', '.join(names)}")
    species = tuple(name for name in TARGET_NAMES if name in names)
    scaling = Scaling(
        tuple(first["features"]), np.array(first["mean"], np.float32), np.array(first["std"], np.float32),
        tuple(first["standardised"]),
    )  # fmt: skip
    networks = [_network(content, scaling) for content in contents]
    taught = Taught.from_json(first["features"], first["taught"])
    hiding = Hiding(taught, tuple(first["mean"]), tuple(first["std"]))
    parts = [Certainty(n, content["objective"], hiding) for n, content in zip(networks, contents, strict=True)]
    # Models written before trainings had notices of their own have those of their sample.
    notices = [line for content in contents for line in content.get("notices", taught.notices())]
    widths = [len(content["species"]) for content in contents]
    module = Together(parts, [names.index(name) for name in species], widths).eval()
    return Classifier(
        species, scaling, module, min(network.evaluation_batch for network in networks), first["model"]["architecture"],
        sum(network.parameter_count for network in networks), taught, tuple(dict.fromkeys(notices)),
    )  # fmt: skip


def read_species(directory: Path) -> tuple[str, ...]:
    """Return the species that the model in a directory identifies, in the order of its outputs.

    Raises:
        TrainingError: the directory holds no model.
    """
    return tuple(_read(Path(directory))["species"])


def _read(directory: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(directory / MODEL_FILE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f"{directory}: no trained model: {error}", "remove the directory and rerun Train"
        ) from error
    if content.get("format") != _FORMAT:
        raise TrainingError(f"{directory}: model of format {content.get('format')}, known is {_FORMAT}", "rerun Train")
    return content


def _network(content: dict[str, Any], scaling: Scaling) -> Network:
    outputs = output_count(content["objective"], len(content["species"]))
    derived = restore(content["derived"], Inputs.of(scaling))
    spread = {name: (mean, std) for name, (mean, std) in content.get("spread", {}).items()}
    network = build(Model.model_validate(content["model"]), Inputs.of(scaling, derived, spread), outputs)
    network.load_state_dict(content["state"])
    return network.eval()
