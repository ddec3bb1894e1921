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
from pidml.models.trees import Trees
from pidml.spec.model_sections import Export
from pidml.training.classifier import Classifier

#: Nodes of trees that are evaluated together: a core's second-level cache holds them. Each group is fetched once per
#: batch, so batches are large.
_NODES, _TREE_BATCH = 20_000, 8192


@dataclass(frozen=True)
class Evaluator:
    """A classifier's graph in onnxruntime.

    Attributes:
        scaling: how features are standardised.
        opened: the graph: standardised features → certainties.
        threads: batches evaluated side by side.
        batch: tracks evaluated at once.
    """

    scaling: Scaling
    opened: ort.InferenceSession
    threads: int
    batch: int = BATCH

    @classmethod
    def of(cls, classifier: Classifier, folder: Path) -> Evaluator:
        """Write the classifier's graph into a folder, which is not needed afterwards, and open it.

        Raises:
            ExportError: it cannot be expressed as a graph.
        """
        path, batch = folder / "certainties.onnx", BATCH
        for part in classifier.module.modules():
            if isinstance(part, Trees):
                part.group_trees(_NODES)
                batch = _TREE_BATCH
        write_onnx(classifier.module, len(classifier.scaling.names), path, Export(), "certainties")
        return cls(classifier.scaling, session(path), torch.get_num_threads(), batch)

    def predict(self, features: Matrix) -> Matrix:
        """Return certainties, float32 (tracks, species), of raw features (tracks, features), NaN for missing."""
        batch = min(self.batch, -(-len(features) // self.threads))  # no thread without work
        return run(self.opened, self.scaling.apply(features), batch, self.threads)
