"""What a user asks for by name."""

from __future__ import annotations

from pipelines.training_job import TrainingJob

__all__ = ["TrainingJob"]
