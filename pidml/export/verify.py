"""Runs exported networks and compares them with the trained ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from pidml import tracks
from pidml.data.prepared import PreparedDataset
from pidml.errors import ExportError
from pidml.export.runtime import run, session
from pidml.models.pieces import pieces

Array = NDArray[np.float32]
BATCH = 4096


def check_sample(prepared: PreparedDataset, size: int) -> Array:
    """Return raw features of validation tracks with every missing pattern among them, float32 (tracks, features).

    Of every eight tracks, TOF is hidden in one, TRD in one, and both in one, so that no pattern is rare.
    """
    sample = prepared.split("validation")
    rows = np.linspace(0, len(sample) - 1, num=min(size, len(sample)), dtype=np.int64)
    features = np.array(sample.features[rows], np.float32)
    for offset, hidden in enumerate((tracks.Missing.TOF, tracks.Missing.TRD, tracks.Missing.TOF | tracks.Missing.TRD)):
        for detector, names in tracks.DETECTOR_COLUMNS.items():
            if detector in hidden:
                columns = [index for index, name in enumerate(prepared.features) if name in names]
                features[offset::8, columns] = np.nan
    return features


def verify(files: Mapping[Path, list[int]], module: nn.Module, standardised: Array, tolerance: float) -> float:
    """Compare exported networks with the module they were made from, in batches and track by track.

    Args:
        files: ONNX file → the module's output columns that it gives.
        module: standardised features → certainties.
        standardised: float32 (tracks, features).
        tolerance: largest difference allowed.

    Returns:
        The largest difference seen.

    Raises:
        ExportError: a file does not run, gives another shape, NaN, or differs too much.
    """
    with torch.inference_mode():
        expected = np.concatenate([module(part).numpy() for (part,) in pieces(BATCH, torch.from_numpy(standardised))])
    largest = 0.0
    for path, columns in files.items():
        opened = session(path)
        if len(opened.get_inputs()) != 1 or len(opened.get_outputs()) != 1:
            raise ExportError(f"{path.name}: one input and one output are needed")
        for batch in (BATCH, 1):  # one by one as O2Physics does
            largest = max(largest, _difference(path, opened, standardised, batch, expected[:, columns]))
    if largest > tolerance:
        raise ExportError(
            f"the exported networks differ from the trained one by {largest:.2g}, allowed is {tolerance:.2g}",
            "raise export.tolerance if that is acceptable, or change export.opset",
        )
    return largest


def _difference(path: Path, opened: ort.InferenceSession, features: Array, batch: int, expected: Array) -> float:
    try:
        given = run(opened, features, batch)
    except Exception as error:  # onnxruntime raises classes of its own, made in C++, without a common base
        raise ExportError(f"{path.name}: does not run at batch {batch}: {error}") from error
    if given.shape != expected.shape or given.dtype != np.float32:
        raise ExportError(f"{path.name}: gives {given.dtype} {given.shape}, not float32 {expected.shape}")
    if not np.isfinite(given).all():
        raise ExportError(f"{path.name}: gives NaN or infinity at batch {batch}")
    return float(np.abs(given - expected).max(initial=0.0))
