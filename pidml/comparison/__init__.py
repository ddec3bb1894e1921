"""Several trained models on the same test tracks: quality, significance of differences, cost."""

from __future__ import annotations

from pidml.comparison.compare import compare_models
from pidml.comparison.contestants import Contestant, entrants
from pidml.comparison.fairness import check_jobs

__all__ = ["Contestant", "check_jobs", "compare_models", "entrants"]
