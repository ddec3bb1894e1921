"""The TPC response: expected signal and resolution per hypothesis, learned from simulation, and nσ made of them."""

from __future__ import annotations

from pidml.response.files import load_response, restore, save_response
from pidml.response.fit import ResponseFit, fit_response
from pidml.response.network import TpcResponse
from pidml.response.run import ResponseSummary, train_tpc_response

__all__ = [
    "ResponseFit",
    "ResponseSummary",
    "TpcResponse",
    "fit_response",
    "load_response",
    "restore",
    "save_response",
    "train_tpc_response",
]
