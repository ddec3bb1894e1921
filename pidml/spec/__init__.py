"""The job specification: what a training job is, with units, ranges and defaults, and the ways to read one."""

from __future__ import annotations

from pidml.spec.job import JobSpec, parse_job
from pidml.spec.load import load_job, preset_names
from pidml.spec.server_task import ServerTask, job_of_task

__all__ = ["JobSpec", "ServerTask", "job_of_task", "load_job", "parse_job", "preset_names"]
