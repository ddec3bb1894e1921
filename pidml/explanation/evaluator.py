"""Evaluates a trained classifier millions of times: through onnxruntime, which is faster than PyTorch for most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort
import torch

from pidml.data.prepared import Scaling
from pidml.explanation.sample import Matrix
from pidml.export.onnx_files import write_onnx
from pidml.export.runtime import BATCH, run, session
from pidml.spec.model_sections import Export
from pidml.training.classifier import Classifier


@dataclass(frozen=True)
class Evaluator:
    """A classifier's graph in onnxruntime.

    Attributes:
        scaling: how features are standardised.
        opened: the graph: standardised features → certainties.
        threads: batches evaluated side by side.
    """

    scaling: Scaling
    opened: ort.InferenceSession
    threads: int

    @classmethod
    def of(cls, classifier: Classifier, folder: Path) -> Evaluator:
        """Write the classifier's graph into a folder, which is not needed afterwards, and open it.

        Raises:
            ExportError: it cannot be expressed as a graph.
        """
        path = folder / "certainties.onnx"
        write_onnx(classifier.module, len(classifier.scaling.names), path, Export(), "certainties")
        return cls(classifier.scaling, session(path), torch.get_num_threads())

    def predict(self, features: Matrix) -> Matrix:
        """Return certainties, float32 (tracks, species), of raw features (tracks, features), NaN for missing."""
        batch = min(BATCH, -(-len(features) // self.threads))  # no thread without work
        return run(self.opened, self.scaling.apply(features), batch, self.threads)
