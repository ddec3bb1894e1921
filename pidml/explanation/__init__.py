"""What a classifier's certainties rest on: importance of its features per species and missing pattern."""

from __future__ import annotations

from pidml.explanation.explain import explain_model

__all__ = ["explain_model"]
