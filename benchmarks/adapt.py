"""Domain adaptation: F1 on tracks with a distorted response, with and without it, and what a fresh probe still sees.

Run as ``python benchmarks/adapt.py``. "Experimental" tracks are simulated with another gain and resolution of TPC and
TOF; a second such sample, with labels that no training sees, is what F1 is measured on. The probe is a gradient-boosted
classifier trained to tell the domains apart by the network's last hidden layer; an AUC of 0.5 is chance.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import samples
import torch
from common import emit
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from pidml.data.prepared import PreparedDataset
from pidml.simulation.distortion import EXPERIMENT
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train

PROBE_TRACKS = 40_000


def main() -> None:
    """Simulate the input, measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=1_000_000, help="tracks per sample, 64 %% of them for training")
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--preset", default="masked-mlp")
    parser.add_argument("--epochs", type=int, default=0, help="instead of the preset's")
    parser.add_argument("--folder", type=Path, help="where samples lie and stay (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adapt-benchmark-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        simulated = samples.sample(folder, options.tracks, options.seed)
        experimental = samples.sample(folder, options.tracks, options.seed + 1, EXPERIMENT, labels=False)
        judged = samples.sample(folder, options.tracks, options.seed + 2, EXPERIMENT)
        plain = {}
        for method in ("none", "dann", "cdan"):
            # the files are not read: the samples are given to the training
            adaptation = {"method": method, "files": ["experimental.root"]}
            job = samples.job_for(options.preset, options.epochs, adaptation=adaptation)
            reached = _measure(job, simulated, experimental, judged, Path(temporary) / method)
            plain = plain or reached
            if method != "none":
                gain = np.mean([reached[name] - plain[name] for name in TARGET_NAMES])
                emit(f"adapt.{method}.f1_gained", float(gain), "", what="mean of six species, distorted tracks")


def _measure(
    job: JobSpec, simulated: PreparedDataset, experimental: PreparedDataset, judged: PreparedDataset, out: Path
) -> dict[str, float]:
    """Train, print F1 per species and the probe's AUC; return F1 on the distorted tracks."""
    out.mkdir()
    method = job.adaptation.method
    summary = train(simulated, job, TARGET_NAMES, out / "work", out, experimental=experimental)
    circumstances = {"epochs": summary.epochs, "training_tracks": len(simulated.split("train"))}
    emit(f"adapt.{method}.throughput", summary.tracks_per_second, "tracks/s", **circumstances)
    reached: dict[str, dict[str, float]] = {}
    for domain, prepared in (("simulated", simulated), ("distorted", judged)):
        test = prepared.split("test")
        accepted = load_classifier(out).predict(test.features) >= [summary.thresholds[name] for name in TARGET_NAMES]
        reached[domain] = samples.f1(test, accepted)
        for name, value in reached[domain].items():
            emit(f"adapt.{method}.f1.{domain}.{name}", value, "", **circumstances)
    emit(f"adapt.{method}.probe_auc", _probe(out, simulated, judged), "", tracks=PROBE_TRACKS)
    return reached["distorted"]


def _probe(out: Path, simulated: PreparedDataset, judged: PreparedDataset) -> float:
    """Return the AUC of a fresh classifier of the domains on tracks that it was not trained on."""
    latent = [_latent(out, simulated, prepared) for prepared in (simulated, judged)]
    layer, domain = np.concatenate(latent), np.repeat((0, 1), [len(part) for part in latent])
    learnt, asked, learnt_domain, asked_domain = train_test_split(layer, domain, test_size=0.5, random_state=1)
    probe = HistGradientBoostingClassifier(random_state=1).fit(learnt, learnt_domain)
    return float(roc_auc_score(asked_domain, probe.predict_proba(asked)[:, 1]))


@torch.inference_mode()
def _latent(out: Path, simulated: PreparedDataset, prepared: PreparedDataset) -> NDArray[np.float32]:
    """Return the last hidden layer of the first test tracks, scaled as in the training."""
    network = load_classifier(out).module.parts[0].network
    features = np.asarray(prepared.split("test").features[:PROBE_TRACKS])
    standardised = torch.from_numpy(simulated.scaling.apply(features))
    parts = [network.latent(network.encode(part)) for part in standardised.split(network.evaluation_batch)]
    result: NDArray[np.float32] = torch.cat(parts).numpy()
    return result


if __name__ == "__main__":
    main()
