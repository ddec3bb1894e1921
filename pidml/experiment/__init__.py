"""Experiment folders: everything that one line of work needs, in one place, made by ``pidml init``."""

from __future__ import annotations

from pidml.experiment.create import create_experiment

__all__ = ["create_experiment"]
