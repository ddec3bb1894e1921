"""All figures about prepared data, with a title and a caption each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pidml.plots import detectors, samples, style

if TYPE_CHECKING:
    from pidml.explore import Plotted

#: Subject → title and caption.
_TEXTS = {
    "tpc-signal": ("TPC signal against momentum", "Lines, on simulation: median of each species in bins of momentum."),
    "tof-beta": (
        "TOF β against momentum",
        "Lines: β = p/√(p² + m²). Left of the dotted line networks do not see TOF.",
    ),
    "trd-signal": ("TRD signal against momentum", "Left of the dotted line networks do not see the TRD."),
    "pt-spectra": ("Spectra of transverse momentum", "Selected tracks, not corrected for efficiency."),
    "missing-patterns": ("Missing detectors per species", "As networks see them, with the momentum limits applied."),
    "missing-vs-p": ("Missing detectors against momentum", "As networks see them: steps are the momentum limits."),
    "features": (
        "Distributions of the features",
        (
            "Each species normalised to 1; physical units, before standardisation; without the tracks for which the "
            "feature is missing."
        ),
    ),
    "correlations": (
        "Correlation of the features",
        "Pearson's coefficient over the tracks that have both features.",
    ),
}  # fmt: skip


def draw_all(
    shown: Plotted, correlations: NDArray[np.float64], limits: Mapping[str, float], out_dir: Path
) -> list[dict[str, Any]]:
    """Draw every figure about a prepared dataset for which it has the columns.

    Args:
        shown: the tracks to draw.
        correlations: of the features, shape (features, features).
        limits: momentum limits ``tof`` and ``trd``, GeV/c.
        out_dir: where the PNG files go, named ``explore_<subject>.png``.

    Returns:
        One record per figure: ``file``, ``title``, ``caption``, ``subject`` and ``species`` (always None).
    """
    made: list[dict[str, Any]] = []
    drawn = style.tracks_text(len(shown.kind))
    if len(shown.kind) < shown.total:
        drawn += f" of {style.tracks_text(shown.total)}"

    def keep(subject: str) -> Path:
        title, caption = _TEXTS[subject]
        file = f"explore_{subject}.png"
        made.append(
            {
                "file": file,
                "title": title,
                "caption": f"{caption} Training sample, {drawn}.",
                "subject": subject,
                "species": None,
            }
        )
        return out_dir / file

    if {"fTPCSignal", "fP"} <= shown.aux.keys():
        detectors.tpc_signal(shown, keep("tpc-signal"))
    if {"fBeta", "fP"} <= shown.aux.keys() and np.isfinite(shown.aux["fBeta"]).any():
        detectors.tof_beta(shown, float(limits["tof"]), keep("tof-beta"))
    if {"fTRDSignal"} <= set(shown.names) and "fP" in shown.aux and np.isfinite(shown.feature("fTRDSignal")).any():
        detectors.trd_signal(shown, float(limits["trd"]), keep("trd-signal"))
    if "fPt" in shown.aux:
        samples.spectra(shown, keep("pt-spectra"))
    if shown.simulation:
        samples.pattern_fractions(shown, keep("missing-patterns"))
    if "fP" in shown.aux:
        samples.patterns_against_momentum(shown, keep("missing-vs-p"))
    samples.features(shown, keep("features"))
    samples.correlations(shown.names, correlations, shown.simulation, keep("correlations"))
    return made
