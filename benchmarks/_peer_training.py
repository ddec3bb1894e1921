"""The peer's training, in the peer's Python, on samples that pidml prepared; ``_peer.py`` starts it.

Run as ``python _peer_training.py TASK`` in a folder for what the peer prepares and uses again. TASK is a JSON file;
what the training leaves lies beside it. Nothing of pidml is imported. The peer's classes are used as they are, but for
this: its preparation is given tracks and their samples (it would read ROOT files and split them itself), its epochs and
validations are timed, and newer versions of PyTorch export its networks as those did that it was written for.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib import import_module as load
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: Ours → the name of the peer's member of ``Split``.
SPLITS = {"train": "TRAIN", "validation": "VAL", "test": "TEST"}


def main() -> None:
    """Train and test one species as the task says; leaves ``result.json`` and ``scores.npz``."""
    path = Path(sys.argv[1]).resolve()
    folder, task = path.parent, json.loads(path.read_text(encoding="utf-8"))
    sys.path.insert(0, str(Path(task["peer"]) / "src"))
    classic_engine: Any = load("pdi.engines.classic_engine")
    data_preparation = load("pdi.data.data_preparation")
    onnx: Any = load("torch.onnx")
    if "dynamo" in signature(onnx.export).parameters:
        onnx.export = partial(onnx.export, dynamo=False)
    load("wandb").init(mode="disabled")
    config = load("pdi.config").Config()
    config.sim_dataset_paths = [str(Path(task["prepared"]) / name / "features.npy") for name in SPLITS]
    config.training.device, config.results_dir = "cpu", str(folder)
    for key, value in task["training"].items():
        setattr(config.training, key, value)
    clock = _Clock()
    clock.count(data_preparation.CombinedDataLoader)
    classic_engine.DataPreparation = _given(data_preparation, Path(task["prepared"]))
    engine = clock.timed(classic_engine.ClassicEngine)(config, task["pdg"])
    clock.started = time.perf_counter()
    engine.train()
    seconds = time.perf_counter() - clock.started
    tested = engine.test()
    result = {
        "seconds": seconds,
        "training_seconds": clock.training_seconds,
        "epochs": clock.epochs,
        "tracks": clock.tracks,
        "history": clock.history,
        "f1_at_own_threshold": float(tested.test_metrics.f1),
        "batch_size": config.training.batch_size,
        "workers": config.training.num_workers,
        "undersampled": [config.training.undersample_pions, config.training.undersample_missing_detectors],
    }
    np.savez(
        folder / "scores.npz", certainty=tested.predictions.astype(np.float32), pdg=tested.targets.astype(np.int32)
    )
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _given(module: Any, prepared: Path) -> Any:
    """Return the peer's preparation with the tracks of a prepared dataset, in its samples.

    Cuts, scaling, grouping by what is missing, and undersampling remain the peer's.
    """
    meta = json.loads((prepared / "meta.json").read_text(encoding="utf-8"))
    tables = [_table(prepared / name, meta) for name in SPLITS]
    bounds = np.cumsum([0, *map(len, tables)])

    class Given(module.DataPreparation):  # type: ignore[misc]
        """The peer's preparation, given its tracks."""

        def _load_data(self) -> pd.DataFrame:
            self._is_experimental = self._is_extended = False
            return pd.concat(tables, ignore_index=True)

        def _test_train_split(self, data: pd.DataFrame) -> dict[Any, pd.DataFrame]:
            parts = np.searchsorted(bounds, data.index.to_numpy(), side="right") - 1
            return {module.Split[name]: data.loc[parts == part].copy() for part, name in enumerate(SPLITS.values())}

    return Given


def _table(sample: Path, meta: dict[str, Any]) -> pd.DataFrame:
    """Return a sample as the peer's tables have it."""
    table = pd.DataFrame(np.load(sample / "features.npy"), columns=meta["features"])
    table["fPt"] = np.load(sample / "aux.npy", mmap_mode="r")[:, meta["aux"].index("fPt")]
    table["fPdgCode"] = np.load(sample / "pdg.npy")
    return table


class _Clock:
    """Tracks and times of a training.

    Attributes:
        started: when it began.
        tracks, epochs: what it has trained.
        training_seconds: what its epochs took, validations excluded.
        history: after each validation: epochs, tracks and seconds so far, validations included; F1 and loss.
    """

    def __init__(self) -> None:
        self.started = self.training_seconds = 0.0
        self.tracks = self.epochs = 0
        self.history: list[list[float]] = []

    def count(self, loader: Any) -> None:
        """Make a class of loaders count the tracks of the training sample."""
        plain = loader.__iter__

        def counted(this: Any) -> Iterator[Any]:
            for batch in plain(this):
                self.tracks += len(batch[1]) if this.shuffle else 0
                yield batch

        loader.__iter__ = counted

    def timed(self, engine: Any) -> Any:
        """Return an engine's class that keeps this clock."""
        clock = self

        class Timed(engine):  # type: ignore[misc]
            """The peer's engine with a clock."""

            def _train_one_epoch(self, *values: Any, **named: Any) -> float:
                begun = time.perf_counter()
                loss: float = super()._train_one_epoch(*values, **named)
                clock.training_seconds += time.perf_counter() - begun
                clock.epochs += 1
                return loss

            def _evaluate(self, *values: Any, **named: Any) -> Any:
                found = super()._evaluate(*values, **named)
                elapsed = round(time.perf_counter() - clock.started, 1)
                row = [clock.epochs, clock.tracks, elapsed, round(float(found.f1), 5), round(float(found.loss), 5)]
                clock.history.append(row)
                return found

        return Timed


if __name__ == "__main__":
    main()
