"""From a torch module to an ONNX file that old and new runtimes read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn

from pidml.atomic import atomic_file
from pidml.errors import ExportError
from pidml.models.trees import Trees
from pidml.spec.model_sections import Export

INPUT, OUTPUT = "features", "certainty"
#: Operators for decision trees; version 1 is what all runtimes know.
_TREES = "ai.onnx.ml"


def write_onnx(module: nn.Module, features: int, path: Path, settings: Export, note: str) -> None:
    """Write a module as ONNX: one input ``(batch, features)``, one output ``(batch, outputs)``, weights inside.

    The exporter is the one that traces: the newer one has no operators below opset 18, and converting its result down
    loses digits of constants (differences of 1e-3 were seen).

    Args:
        module: standardised features → certainties; in evaluation mode.
        features: number of features.
        path: file to write, atomically.
        settings: operator set and file format.
        note: what the model is, stored in the file.

    Raises:
        ExportError: the module cannot be expressed, or the result is no valid model.
    """
    example = torch.zeros(3, features)
    example[1] = torch.nan
    has_trees = any(isinstance(part, Trees) for part in module.modules())
    with atomic_file(path) as temporary:
        try:
            with _quiet():
                torch.onnx.export(
                    module, (example,), temporary, dynamo=False, opset_version=settings.opset,
                    input_names=[INPUT], output_names=[OUTPUT],
                    dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
                    custom_opsets={_TREES: 1} if has_trees else None,
                )  # fmt: skip
            model = onnx.load(temporary)
            model.ir_version = settings.ir_version
            model.doc_string = note
            model.producer_name = "pidml"
            onnx.checker.check_model(model, full_check=True)
        except (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError, RuntimeError) as error:
            raise ExportError(
                f"{path.name}: cannot be written with opset {settings.opset}, IR {settings.ir_version}: {error}",
                "set export.opset: 17 and export.ir_version: 9",
            ) from error
        onnx.save(model, temporary)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter says about itself; other warnings pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based ONNX export")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.")
        yield
