"""Networks that identify particles: standardised features with NaN for missing in, one logit per output out."""

from __future__ import annotations

from pidml.models.base import Inputs, Network
from pidml.models.registry import build

__all__ = ["Inputs", "Network", "build"]
