"""Simulated collisions and detector response whose likelihood, hence the best identification possible, is known."""

from __future__ import annotations

from pidml.simulation.generate import SimulatedTracks, generate_tracks
from pidml.simulation.likelihood import log_likelihood, posterior

__all__ = ["SimulatedTracks", "generate_tracks", "log_likelihood", "posterior"]
