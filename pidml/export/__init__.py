"""The deployable bundle: ONNX networks with everything needed to use them, written, verified and read."""

from __future__ import annotations

from pidml.export.bundle import Bundle
from pidml.export.write import ExportSummary, export_bundle

__all__ = ["Bundle", "ExportSummary", "export_bundle"]
