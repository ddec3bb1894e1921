"""ExplainModel: what the networks' certainties rest on."""

from __future__ import annotations

from pathlib import Path

from pidml.spec import JobSpec
from tasks.train import UsesNetworks


class ExplainModel(UsesNetworks):
    """Measure the importance of features per species and missing pattern: permutation importance and Shapley values.

    A job owes it with ``evaluation.explain: true``; its report then shows it.
    """

    version = 3
    reads = ("thresholds", "evaluation.explain_tracks", "seed")
    uploads = (("*.png", "image"), ("*.csv", "log"), ("*.json", "log"))
    upload_prefix = "explain"

    @classmethod
    def asked_for(cls, spec: JobSpec) -> bool:
        """Only where the job says so."""
        return spec.evaluation.explain

    def make(self, out: Path) -> None:
        """Explain and draw."""
        from pidml.explanation import explain_model

        explain_model(self.prepared, self.network_directories, self.spec, out)
