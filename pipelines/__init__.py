"""What a user asks for by name."""

from __future__ import annotations

from pipelines.compare_models import CompareModels
from pipelines.training_job import TrainingJob

__all__ = ["CompareModels", "TrainingJob"]
