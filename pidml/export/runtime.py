"""Runs ONNX files with onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[np.float32]


def session(path: Path, threads: int = 1) -> ort.InferenceSession:
    """Open an ONNX file for running on the CPU with ``threads`` threads (0: all cores)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(opened: ort.InferenceSession, standardised: Array, batch: int) -> Array:
    """Return what a network gives for standardised features, ``batch`` rows at a time."""
    name = opened.get_inputs()[0].name
    parts = [
        opened.run(None, {name: standardised[start : start + batch]})[0] for start in range(0, len(standardised), batch)
    ]
    return np.concatenate(parts)
