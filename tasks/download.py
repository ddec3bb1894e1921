"""DownloadAOD: every input file in the store, verified."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pidml.atomic import exclusive, write_json
from pidml.errors import DownloadError, PathRefused
from pidml.identity import digest
from pidml.spec.data_sections import InputFile
from tasks.framework import NO_JOB, WORKFLOW, JobTask
from tasks.remote import RemoteWorkflow
from tasks.sources import OfFiles
from tasks.workers import DOWNLOADS

#: Name under which a fetched file lies in its output directory.
FILE_NAME = "AO2D.root"
#: Written instead of the file when the job may do without it.
MISSING_NAME = "missing.json"


class DownloadAOD(OfFiles, RemoteWorkflow):
    """Fetch one file per branch. Two jobs over the same file share it: its address is the file's own.

    A job that may do without some files (``dataset.require`` below 1) gets an output of its own for each, which may say
    that the file could not be had; the share obtained is checked when the data are prepared.
    """

    asks_for = "download"

    @property
    def resources(self) -> dict[str, int]:
        """Downloads share out the lines to the outside (:mod:`tasks.workers`), not the processor."""
        return {} if self.branch == WORKFLOW else {DOWNLOADS: 1}

    def create_branch_map(self) -> dict[int, InputFile]:
        """One branch per file."""
        return dict(enumerate(self.spec.dataset.files))

    @property
    def lenient(self) -> bool:
        """Whether the job may do without some files."""
        return self.spec.dataset.require != "all"

    def settings(self) -> dict[str, Any]:
        """What identifies the file (a branch) or the list of files (the workflow)."""
        if self.is_workflow():
            return {"files": [file_identity(file.path) for file in self.spec.dataset.files], "lenient": self.lenient}
        return {"file": file_identity(self.branch_data.path)} | ({"lenient": True} if self.lenient else {})

    def bytes_to_write(self) -> int:
        """Sizes of the missing files and of the tables made of them, as far as the job says; local ones are linked."""
        from pidml.batch.disks import bytes_of, room

        everything = bytes_of(self.branch_map.values())
        if not everything or (self.store.root.is_dir() and everything < room(self.store.root)[0] / 2):
            return everything  # looking at thousands of branches takes seconds, and is not needed
        return bytes_of(file for branch, file in self.branch_map.items() if not self.as_branch(branch).complete())

    def make(self, out: Path) -> dict[str, Any]:
        """Fetch and verify the file; resumes what an earlier attempt left."""
        from pidml.fetch import FetchOptions, fetch

        options = FetchOptions.from_env(os.environ, from_server=self.job_id != NO_JOB)
        known_by = digest(file_identity(self.branch_data.path))
        partial = self.store.root / type(self).__name__ / ".partial" / known_by / FILE_NAME
        with exclusive(partial.parent):  # a job that may do without the file and one that may not share the download
            try:
                receipt = fetch(self.branch_data, partial, options)
            except DownloadError as error:
                if not self.lenient or isinstance(error, PathRefused):
                    raise
                path = self.branch_data.path
                print(f"{self.title}: going on without {path}: {error}")  # noqa: T201 - step log
                write_json(out / MISSING_NAME, {"path": path, "code": error.code, "reason": error.what})
                return {"obtained": False}
            partial.rename(out / FILE_NAME)
            shutil.rmtree(partial.parent, ignore_errors=True)
        return {"obtained": True, "receipt": receipt.as_json()}


def branch_files(task: JobTask, branches: list[int]) -> list[Path]:
    """Return the files that some branches of DownloadAOD obtained."""
    found = (DownloadAOD.req(task, branch=branch).directory / FILE_NAME for branch in branches)
    return [path for path in found if path.is_file()]


def inputs_obtained(task: JobTask, **source: str) -> Any:
    """Return which of the job's files were had, and why the others were not (:class:`pidml.fetch.InputsObtained`).

    ``source`` says which section's files, where that is not to be taken from the task.
    """
    from pidml.fetch.policy import InputsObtained

    dataset, missing = DownloadAOD.req(task, **source).spec.dataset, {}
    for branch, file in enumerate(dataset.files):
        record = DownloadAOD.req(task, branch=branch, **source).directory / MISSING_NAME
        if record.is_file():
            missing[file.path] = json.loads(record.read_text(encoding="utf-8"))["reason"]
    return InputsObtained(dataset.require, len(dataset.files), missing)


def forget_passing(task: JobTask) -> int:
    """Forget files not had for a reason that may pass, so that the next run asks for them again; returns how many."""
    forgotten = 0
    for branch in range(len(task.spec.dataset.files)):
        output = DownloadAOD.req(task, branch=branch).output()
        record = Path(output.path, MISSING_NAME)
        if record.is_file() and json.loads(record.read_text(encoding="utf-8"))["code"] == DownloadError.code:
            output.remove()
            forgotten += 1
    return forgotten


def file_identity(path: str) -> dict[str, Any]:
    """Return what a file is known by: an LFN or remote address alone; a local path with size and time of change."""
    local = urlsplit(path).scheme in ("", "file") and not path.startswith("/alice/")
    if not local:
        return {"path": path}
    place = unquote(urlsplit(path).path) if path.startswith("file:") else path
    try:
        status = Path(place).stat()
    except OSError:
        return {"path": path}
    return {"path": path, "size": status.st_size, "changed": status.st_mtime_ns}
