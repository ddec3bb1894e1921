"""The report of a job: one HTML file that can be mailed."""

from __future__ import annotations

from pidml.report.write import write_report

__all__ = ["write_report"]
