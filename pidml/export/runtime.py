"""Runs ONNX files with onnxruntime on the CPU."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[np.float32]


#: Rows evaluated at once unless said otherwise: their intermediate values fit a core's cache, even those of attention.
BATCH = 512


def session(path: Path) -> ort.InferenceSession:
    """Open an ONNX file for running on the CPU; each call of the session takes one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(opened: ort.InferenceSession, standardised: Array, batch: int = BATCH, threads: int = 1) -> Array:
    """Return what a network gives for standardised features.

    Batches run side by side, which keeps cores busier than sharing the operations of one batch among them.

    Args:
        opened: what :func:`session` returned.
        standardised: float32 (tracks, features), at least one track.
        batch: rows evaluated at once.
        threads: batches evaluated side by side; 0 for as many as this process may use cores.
    """
    name = opened.get_inputs()[0].name
    parts = [standardised[start : start + batch] for start in range(0, len(standardised), batch)]
    threads = min(threads or len(os.sched_getaffinity(0)), len(parts))

    def certainties(part: Array) -> Array:
        result: Array = opened.run(None, {name: part})[0]
        return result

    if threads <= 1:
        return np.concatenate([certainties(part) for part in parts])
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(certainties, parts)))
