"""ExportModel: the deployable bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pidml.species import TARGETS
from tasks.train import UsesNetworks


class ExportModel(UsesNetworks):
    """Write the networks as ONNX files that O2Physics and Python read, verified by running them."""

    version = 2
    reads = ("thresholds", "export")
    uploads = (
        *((f"{species.name}.onnx", "onnx") for species in TARGETS),
        *(
            (name, "log")
            for name in (
                "scaling_params.json",
                "columns_for_training.json",
                "thresholds.json",
                "thresholds_pt.json",
                "manifest.json",
            )
        ),
    )
    upload_prefix = "export"

    def make(self, out: Path) -> dict[str, Any] | None:
        """Export and verify."""
        from pidml.export import export_bundle

        summary = export_bundle(self.network_directories, self.prepared, self.spec, out)
        return {"export": dataclasses.asdict(summary)}
