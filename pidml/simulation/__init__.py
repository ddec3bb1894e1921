"""Simulated collisions and detector response whose likelihood, hence the best identification possible, is known."""

from __future__ import annotations

from pidml.simulation.ao2d import write_ao2d
from pidml.simulation.files import simulate_files
from pidml.simulation.generate import SimulatedTracks, generate_tracks
from pidml.simulation.likelihood import log_likelihood, posterior
from pidml.simulation.metadata import made_by_simulation
from pidml.simulation.raw_tables import RawFormat
from pidml.simulation.sandbox import is_sandbox_lfn, sandbox_lfns, write_sandbox_file
from pidml.simulation.track_tables import TableFormat, write_track_table

__all__ = [
    "RawFormat",
    "SimulatedTracks",
    "TableFormat",
    "generate_tracks",
    "is_sandbox_lfn",
    "log_likelihood",
    "made_by_simulation",
    "posterior",
    "sandbox_lfns",
    "simulate_files",
    "write_ao2d",
    "write_sandbox_file",
    "write_track_table",
]
