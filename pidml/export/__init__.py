"""The deployable bundle: ONNX networks with everything needed to use them, written, verified and read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pidml.export.bundle import Bundle

if TYPE_CHECKING:
    from pidml.export.write import ExportSummary, export_bundle

__all__ = ["Bundle", "ExportSummary", "export_bundle"]


def __getattr__(name: str) -> Any:
    """Import what writes bundles when it is asked for: it loads torch, which reading a bundle does without."""
    if name in ("ExportSummary", "export_bundle"):
        from pidml.export import write

        return getattr(write, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
