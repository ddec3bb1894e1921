"""Training of networks on prepared data, thresholds, and the classifier that comes out."""

from __future__ import annotations

from pidml.training.classifier import Classifier, load_classifier
from pidml.training.train import TrainingSummary, train

__all__ = ["Classifier", "TrainingSummary", "load_classifier", "train"]
