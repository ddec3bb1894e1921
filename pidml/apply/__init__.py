"""Applying a bundle to files: certainties and decisions for every track, streamed to ROOT or Parquet."""

from __future__ import annotations

from pidml.apply.run import ApplySummary, apply_bundle
from pidml.apply.writers import read_provenance

__all__ = ["ApplySummary", "apply_bundle", "read_provenance"]
