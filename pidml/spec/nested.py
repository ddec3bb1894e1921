"""Translation of the nested configuration that newer training code takes (data, model, training, validation …).

Every key is accounted for: translated, known to have no bearing on what comes out (device, workers), or refused. Values
come from a server: each is checked for its type before it is looked at, and shortened before it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pidml.errors import SpecError
from pidml.spec.job import shortened

_SECTIONS = ("data", "model", "training", "validation", "sweep")
_TOP = (*_SECTIONS, "sim_dataset_paths", "exp_dataset_paths", "project_dir", "results_dir", "mixed_precision", "seed",
        "config_path")  # fmt: skip
#: Keys of sections that say where, how loudly or for whom the other program runs.
_VALIDATION = ("batch_size", "num_workers", "validate_every")
_SWEEP = ("config", "name", "project_name")
_TRAINING = {
    "start_lr": "learning_rate",
    "batch_size": "batch_size",
    "max_epochs": "max_epochs",
    "early_stopping_epoch_count": "patience",
    "early_stopping_progress_threshold": "min_improvement",
    "optimizer": "optimizer",
    "undersample_missing_detectors": "undersample",
}
_PERCEPTRON = {"hidden_layers": "hidden", "dropout": "dropout"}
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
#: Architecture with domain adaptation → method; it is the attention network, with a section around its own.
_ADAPTED = {"attention_dann": "dann", "attention_cdan": "cdan"}
#: Default of ``alpha``, the weight of the reversed gradient.
_ALPHA = 2.0
_ADAPTATION = {"alpha": "coefficient", "dom_hidden_layers": "hidden"}
#: Architecture → its keys and ours; architectures that are not here are refused when chosen.
_ARCHITECTURES = {"attention": _ATTENTION, "mlp": _PERCEPTRON, "ensemble": _PERCEPTRON}
_MODEL = (
    "architecture",
    "attention",
    "mlp",
    "ensemble",
    "attention_dann",
    "attention_cdan",
    "pretrained_model_dirpath",
)
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
        SpecError: a key is unknown, of the wrong type, or asks for something that cannot be done here.
    """
    _known("Configuration", configuration, _TOP)
    _known("Configuration.validation", _section(configuration, "validation"), _VALIDATION)
    _known("Configuration.sweep", _section(configuration, "sweep"), _SWEEP)
    sections: dict[str, Any] = {
        "preparation": _preparation(_section(configuration, "data")),
        "model": _model(_section(configuration, "model")),
        "training": _training(_section(configuration, "training")),
    }
    if configuration.get("sim_dataset_paths"):
        raise SpecError("Configuration.sim_dataset_paths: a task names its files in AODFiles", "leave it empty")
    if adaptation := _adaptation(configuration):
        sections["adaptation"] = adaptation
    if _switch("Configuration", configuration, "mixed_precision"):
        sections["training"]["precision"] = "16-mixed"
    if "seed" in configuration:
        sections["seed"] = configuration["seed"]
    return sections


def _section(holder: Mapping[str, Any], name: str, where: str = "Configuration") -> Mapping[str, Any]:
    section = holder.get(name, {})
    if not isinstance(section, dict):
        raise SpecError(f"{where}.{name}: a mapping is needed, found {type(section).__name__}")
    return section


def _known(where: str, section: Mapping[str, Any], allowed: Mapping[str, Any] | tuple[str, ...]) -> None:
    if unknown := sorted(key for key in section if key not in allowed):
        shown = ", ".join(repr(key[:40]) for key in unknown[:10])
        raise SpecError(f"{where}: unknown key {shown}", f"known keys: {', '.join(sorted(allowed))}")


def _switch(where: str, section: Mapping[str, Any], key: str) -> bool:
    value = section.get(key, False)
    if not isinstance(value, bool):
        raise SpecError(f"{where}.{key} = {shortened(value)}: allowed is true or false")
    return value


def _choice(where: str, section: Mapping[str, Any], key: str, default: str, allowed: Mapping[str, Any]) -> str:
    value = section.get(key, default)
    if not isinstance(value, str) or value not in allowed:
        raise SpecError(f"{where}.{key} = {shortened(value)}: not available", f"available: {', '.join(allowed)}")
    return value


def _preparation(data: Mapping[str, Any]) -> dict[str, Any]:
    where = "Configuration.data"
    _known(
        where, data, ("is_run_3", "outlier_filtering_methods", "outlier_filtering_method", "train_size", "test_size")
    )
    _switch(where, data, "is_run_3")  # tables are recognised by what they hold
    if data.get("outlier_filtering_method") is not None:
        raise SpecError(
            f"{where}.outlier_filtering_method = {shortened(data['outlier_filtering_method'])}: not available",
            "use null, and cuts in a job file",
        )
    if "train_size" not in data and "test_size" not in data:
        return {}
    train, test = data.get("train_size", 0.64), data.get("test_size", 0.2)
    for key, value in (("train_size", train), ("test_size", test)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise SpecError(f"{where}.{key} = {shortened(value)}: a fraction between 0 and 1 is needed")
    return {"validation_fraction": round(1 - train - test, 12), "test_fraction": test}


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    where = "Configuration.model"
    _known(where, model, _MODEL)
    named = _choice(where, model, "architecture", "attention", _ARCHITECTURES | _ADAPTED)
    if model.get("pretrained_model_dirpath") is not None:
        raise SpecError(f"{where}.pretrained_model_dirpath: a task cannot name a model here", "use null")
    chosen, place, architecture = _section(model, named, where), f"{where}.{named}", named
    if named in _ADAPTED:
        _known(place, chosen, ("attention", *_ADAPTATION))
        architecture, place, chosen = "attention", f"{place}.attention", _section(chosen, "attention", place)
    keys = _ARCHITECTURES[architecture]
    _known(place, chosen, (*keys, "activation", *_own_keys(architecture)))
    _choice(place, chosen, "activation", "ReLU", {"ReLU": None})
    result = {"architecture": architecture} | {ours: chosen[key] for key, ours in keys.items() if key in chosen}
    if chosen.get("group_ids"):
        raise SpecError(
            f"{place}.group_ids = {shortened(chosen['group_ids'])}: every missing pattern has its network", "use []"
        )
    if "missing_data_strategy" in chosen:
        result["imputation"] = chosen["missing_data_strategy"]
    return result


def _adaptation(configuration: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the section about domain adaptation, if the architecture asks for it; its paths are not checked here."""
    model, paths = _section(configuration, "model"), configuration.get("exp_dataset_paths") or []
    architecture = model.get("architecture")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise SpecError(f"Configuration.exp_dataset_paths = {shortened(paths)}: a list of paths is needed")
    if architecture not in _ADAPTED:
        if paths:
            raise SpecError(
                "Configuration.exp_dataset_paths: experimental files without domain adaptation",
                f"leave it empty, or choose an architecture of {', '.join(_ADAPTED)}",
            )
        return None
    chosen = _section(model, architecture, "Configuration.model")
    own = {ours: chosen[key] for key, ours in _ADAPTATION.items() if key in chosen}
    return {"method": _ADAPTED[architecture], "files": paths, "coefficient": _ALPHA} | own


def _own_keys(architecture: str) -> tuple[str, ...]:
    return {"mlp": ("missing_data_strategy",), "ensemble": ("group_ids",)}.get(architecture, ())


def _training(training: Mapping[str, Any]) -> dict[str, Any]:
    where = "Configuration.training"
    own = ("lr_scheduler", "loss", "weight_particles_species", "undersample_pions", "optimizers", "lr_schedulers")
    _known(where, training, (*_TRAINING, *own, "device", "steps_to_log", "num_workers"))
    _choice(where, training, "loss", "cross entropy", {"cross entropy": None})
    for key in ("weight_particles_species", "undersample_pions"):
        if _switch(where, training, key):
            raise SpecError(f"{where}.{key}: not available", "use false")
    result = {ours: training[key] for key, ours in _TRAINING.items() if key in training}
    schedule = _choice(where, training, "lr_scheduler", "exponential", _SCHEDULES)
    result["schedule"] = _SCHEDULES[schedule]
    own_settings = _section(_section(training, "lr_schedulers", where), schedule, f"{where}.lr_schedulers")
    _known(f"{where}.lr_schedulers.{schedule}", own_settings, ("gamma",) if schedule == "exponential" else ())
    if "gamma" in own_settings:
        result["gamma"] = own_settings["gamma"]
    optimizer = _choice(where, training, "optimizer", "adamw", {"adamw": None, "sgd": None})
    weights = _section(_section(training, "optimizers", where), optimizer, f"{where}.optimizers")
    _known(f"{where}.optimizers.{optimizer}", weights, ("weight_decay",))
    if "weight_decay" in weights:
        result["weight_decay"] = weights["weight_decay"]
    return result
