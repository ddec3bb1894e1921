"""Several trained models on the same test tracks: quality, significance of differences, cost."""

from __future__ import annotations

from pidml.comparison.compare import compare_models
from pidml.comparison.contestants import Contestant

__all__ = ["Contestant", "compare_models"]
