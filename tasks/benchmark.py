"""Benchmark: how good the networks are."""

from __future__ import annotations

from pathlib import Path

from tasks.train import UsesNetworks


class Benchmark(UsesNetworks):
    """Measure purity, efficiency, F1 and AUC on the test sample, beside nσ, Bayesian PID and the exact optimum."""

    version = 3
    reads = ("thresholds", "evaluation")
    uploads = (("*.png", "image"), ("*.csv", "log"), ("*.json", "log"))
    upload_prefix = "benchmark"

    def make(self, out: Path) -> None:
        """Evaluate and draw."""
        from pidml.evaluation.benchmark import run_benchmark

        run_benchmark(self.prepared, self.network_directories, self.spec, out)
