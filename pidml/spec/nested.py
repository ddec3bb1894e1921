"""Translation of the nested configuration that newer training code takes (data, model, training, validation …).

Every key is accounted for: translated, known to have no bearing on what comes out (device, workers), or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pidml.errors import SpecError

_SECTIONS = frozenset({"data", "model", "training", "validation", "sweep"})
_TOP = _SECTIONS | {
    "sim_dataset_paths", "exp_dataset_paths", "project_dir", "results_dir", "mixed_precision", "seed", "config_path",
}  # fmt: skip
#: Keys that say where or how loudly the other program runs.
_NO_BEARING = {
    "data": {"is_run_3", "outlier_filtering_methods"},
    "training": {"device", "steps_to_log", "num_workers", "optimizers", "lr_schedulers"},
}
_TRAINING = {
    "start_lr": "learning_rate",
    "batch_size": "batch_size",
    "max_epochs": "max_epochs",
    "early_stopping_epoch_count": "patience",
    "early_stopping_progress_threshold": "min_improvement",
    "optimizer": "optimizer",
    "undersample_missing_detectors": "undersample",
}
_ATTENTION = {
    "embed_hidden_layers": "embed_hidden",
    "embed_dim": "d_model",
    "encoder_ff_hidden": "ff_hidden",
    "pool_hidden_layers": "pool_hidden",
    "mlp_hidden_layers": "head_hidden",
    "num_heads": "num_heads",
    "num_blocks": "num_blocks",
    "dropout": "dropout",
}
_SCHEDULES = {
    "exponential": "exponential",
    "cosine_restarts": "cosine",
    "polynomial": "polynomial",
    "constant": "constant",
}


def is_nested(configuration: Mapping[str, Any]) -> bool:
    """Tell whether a configuration is of the nested form: it has at least one of its sections."""
    return any(isinstance(configuration.get(section), dict) for section in _SECTIONS)


def sections_of_nested(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job specification's sections for a nested configuration.

    Raises:
        SpecError: a key is unknown, or asks for something that cannot be done here.
    """
    _known("Configuration", configuration, _TOP)
    sections: dict[str, Any] = {
        "preparation": _preparation(_section(configuration, "data")),
        "model": _model(_section(configuration, "model")),
        "training": _training(_section(configuration, "training")),
    }
    for key in ("sim_dataset_paths", "exp_dataset_paths"):
        if configuration.get(key):
            raise SpecError(f"Configuration.{key}: a task names its files in AODFiles", "leave it empty")
    if configuration.get("mixed_precision"):
        sections["training"]["precision"] = "16-mixed"
    if "seed" in configuration:
        sections["seed"] = configuration["seed"]
    return sections


def _section(configuration: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = configuration.get(name, {})
    if not isinstance(section, dict):
        raise SpecError(f"Configuration.{name}: a mapping is needed, found {type(section).__name__}")
    return section


def _known(where: str, section: Mapping[str, Any], allowed: set[str] | frozenset[str]) -> None:
    if unknown := sorted(key for key in section if key not in allowed):
        shown = ", ".join(repr(key[:40]) for key in unknown[:10])
        raise SpecError(f"{where}: unknown key {shown}", f"known keys: {', '.join(sorted(allowed))}")


def _preparation(data: Mapping[str, Any]) -> dict[str, Any]:
    _known("Configuration.data", data, _NO_BEARING["data"] | {"outlier_filtering_method", "train_size", "test_size"})
    if data.get("outlier_filtering_method") is not None:
        raise SpecError(
            f"Configuration.data.outlier_filtering_method = {data['outlier_filtering_method']!r}: not available",
            "use null, and cuts in a job file",
        )
    if "train_size" not in data and "test_size" not in data:
        return {}
    train, test = data.get("train_size", 0.64), data.get("test_size", 0.2)
    for key, value in (("train_size", train), ("test_size", test)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise SpecError(f"Configuration.data.{key} = {value!r}: a fraction between 0 and 1 is needed")
    return {"validation_fraction": round(1 - train - test, 12), "test_fraction": test}


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    architecture = model.get("architecture", "attention")
    if architecture != "attention":
        raise SpecError(f"Configuration.model.architecture = {architecture!r}: not available", "available: attention")
    _known("Configuration.model", model, {
        "architecture", "mlp", "ensemble", "attention", "attention_dann", "attention_cdan", "pretrained_model_dirpath",
    })  # fmt: skip
    if model.get("pretrained_model_dirpath") is not None:
        raise SpecError("Configuration.model.pretrained_model_dirpath: a task cannot name a model here", "use null")
    attention = _section(model, "attention")
    _known("Configuration.model.attention", attention, _ATTENTION.keys() | {"activation"})
    if attention.get("activation", "ReLU") != "ReLU":
        raise SpecError(
            f"Configuration.model.attention.activation = {attention['activation']!r}: only ReLU is available"
        )
    return {"architecture": "attention"} | {
        ours: attention[key] for key, ours in _ATTENTION.items() if key in attention
    }


def _training(training: Mapping[str, Any]) -> dict[str, Any]:
    _known(
        "Configuration.training",
        training,
        _NO_BEARING["training"]
        | _TRAINING.keys()
        | {"lr_scheduler", "loss", "weight_particles_species", "undersample_pions"},
    )
    if training.get("loss", "cross entropy") != "cross entropy":
        raise SpecError(f"Configuration.training.loss = {training['loss']!r}: only 'cross entropy' is available")
    for key in ("weight_particles_species", "undersample_pions"):
        if training.get(key):
            raise SpecError(f"Configuration.training.{key}: not available", "use false")
    result = {ours: training[key] for key, ours in _TRAINING.items() if key in training}
    scheduler = training.get("lr_scheduler", "exponential")
    if scheduler not in _SCHEDULES:
        raise SpecError(f"Configuration.training.lr_scheduler = {scheduler!r}: allowed: {', '.join(_SCHEDULES)}")
    result["schedule"] = _SCHEDULES[scheduler]
    own = _section(_section(training, "lr_schedulers"), "exponential")
    if scheduler == "exponential" and "gamma" in own:
        result["gamma"] = own["gamma"]
    weights = _section(_section(training, "optimizers"), result.get("optimizer", "adamw"))
    if "weight_decay" in weights:
        result["weight_decay"] = weights["weight_decay"]
    return result
