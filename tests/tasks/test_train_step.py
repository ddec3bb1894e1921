"""What the step Train makes of a job before it trains: GPUs that it asks for, and settings that it does not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.train import Train


class Reserved(Exception):
    """Tells what was to be reserved."""


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function from model and training settings to the step, whose reservation of GPUs ends it."""

    def reserved(accelerator: str, count: int, names: str) -> None:
        raise Reserved(accelerator, count, names)

    monkeypatch.setattr("pidml.gpus.reserved", reserved)
    monkeypatch.setenv("PIDML_STORE", str(tmp_path / "store"))

    def of(model: dict[str, Any], training: dict[str, Any]) -> Train:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        files = ["/alice/sim/2024/LHC24b1b/0/1/AOD/001/AO2D.root"]
        path.write_text(yaml.safe_dump({"dataset": {"files": files}, "model": model, "training": training}))
        return Train(job=str(path), branch=0)

    return of


@pytest.mark.parametrize("architecture", ["boosted-trees", "random-forest"])
def test_trees_take_no_gpu_from_others(step: Any, tmp_path: Path, architecture: str) -> None:
    for accelerator in ("auto", "gpu"):
        with pytest.raises(Reserved) as asked:
            step({"architecture": architecture}, {"accelerator": accelerator, "devices": 2}).make(tmp_path)
        assert asked.value.args[0] == "cpu"
    with pytest.raises(Reserved) as asked:
        step({"architecture": "mlp"}, {"accelerator": "gpu", "devices": 2}).make(tmp_path)
    assert asked.value.args == ("gpu", 2, "")


def test_settings_that_are_not_read_are_told(step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = {"learning_rate": 0.1, "patience": 2, "optimizer": "adamw", "devices": 2}
    for model, told in (
        (
            {"architecture": "random-forest", "trees": 7, "depth": 3},
            "model.depth, training.learning_rate, training.",
        ),
        ({"architecture": "mlp", "hidden": 7, "num_heads": 4}, "model.num_heads\n"),
        ({"architecture": "attention"}, ""),
    ):
        with pytest.raises(Reserved):
            step(model, training).make(tmp_path)
        out = capsys.readouterr().out
        assert out.startswith(f"not read by {model['architecture']}: {told}" if told else told)
        assert bool(out) == bool(told)


def test_an_address_depends_on_what_the_architecture_reads(step: Any) -> None:
    def digest(architecture: str, **training: Any) -> str:
        return str(step({"architecture": architecture}, training).digest)

    unread = {
        "learning_rate": 0.1, "batch_size": 7, "max_epochs": 3, "optimizer": "sgd", "schedule": "constant",
        "precision": "bf16-mixed", "compile": True, "gradient_clip": 1.0, "weight_decay": 0.5, "gamma": 0.5,
    }  # fmt: skip
    assert digest("boosted-trees", **unread) == digest("boosted-trees")
    assert digest("random-forest", **unread) == digest("random-forest")
    for key, value in unread.items():
        assert digest("masked-mlp", **{key: value}) != digest("masked-mlp")
    read = {"objective": "softmax", "patience": 9, "min_improvement": 0.5, "class_weights": "balanced"}
    for key, value in {**read, "pattern_weights": "balanced", "undersample": True}.items():
        assert digest("boosted-trees", **{key: value}) != digest("boosted-trees")
