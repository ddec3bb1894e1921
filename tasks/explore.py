"""ExploreData: plots and tables of the prepared data."""

from __future__ import annotations

from pathlib import Path

from tasks.prepare import UsesPrepared


class ExploreData(UsesPrepared):
    """Show what the networks will learn from: dE/dx, β, spectra, missing detectors, correlations."""

    uploads = (("*.png", "image"), ("*.csv", "log"), ("*.json", "log"))
    upload_prefix = "explore"

    def make(self, out: Path) -> None:
        """Draw and count."""
        from pidml.explore import explore

        explore(self.prepared, out)
