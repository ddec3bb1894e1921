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


def draw_all(
    shown: Plotted, correlations: NDArray[np.float64], limits: Mapping[str, float], out_dir: Path
) -> list[dict[str, Any]]:
    """Draw every figure about a prepared dataset.

    Args:
        shown: the tracks to draw.
        correlations: of the features, shape (features, features).
        limits: momentum limits ``tof`` and ``trd``, GeV/c.
        out_dir: where the PNG files go, named ``explore_<subject>.png``.

    Returns:
        One record per figure: ``file``, ``title``, ``caption`` and ``subject``.
    """
    made: list[dict[str, Any]] = []
    drawn = style.tracks_text(len(shown.kind))
    if len(shown.kind) < shown.total:
        drawn += f" of {style.tracks_text(shown.total)}"

    def keep(subject: str, title: str, caption: str) -> Path:
        file = f"explore_{subject}.png"
        made.append({"file": file, "title": title, "caption": f"{caption} Training sample, {drawn}.", "subject": subject,
                     "species": None})  # fmt: skip
        return out_dir / file

    if {"fTPCSignal", "fP"} <= shown.aux.keys():
        path = keep("tpc-signal", "TPC signal against momentum",
                    "Lines: median of each species in bins of momentum." if shown.simulation else "")  # fmt: skip
        detectors.tpc_signal(shown, path)
    if {"fBeta", "fP"} <= shown.aux.keys():
        path = keep("tof-beta", "TOF β against momentum",
                    "Lines: β = p/√(p² + m²). Left of the dotted line networks do not see TOF.")  # fmt: skip
        detectors.tof_beta(shown, float(limits["tof"]), path)
    if "fTRDSignal" in shown.names:
        path = keep("trd-signal", "TRD signal against momentum", "Left of the dotted line networks do not see the TRD.")
        detectors.trd_signal(shown, float(limits["trd"]), path)
    if "fPt" in shown.aux:
        path = keep("pt-spectra", "Spectra of transverse momentum", "Selected tracks, not corrected for efficiency.")
        samples.spectra(shown, path)
    if shown.simulation:
        path = keep("missing-patterns", "Missing detectors per species",
                    "As networks see them, with the momentum limits applied.")  # fmt: skip
        samples.pattern_fractions(shown, path)
    if "fP" in shown.aux:
        path = keep("missing-vs-p", "Missing detectors against momentum",
                    "As networks see them: steps are the momentum limits.")  # fmt: skip
        samples.patterns_against_momentum(shown, path)
    path = keep("features", "Distributions of the features",
                "Each species normalised to 1; values in physical units, before standardisation; tracks for which "
                "the feature is missing are left out.")  # fmt: skip
    samples.features(shown, path)
    path = keep(
        "correlations", "Correlation of the features", "Pearson's coefficient over tracks that have both features."
    )
    samples.correlations(shown.names, correlations, shown.simulation, path)
    return made
