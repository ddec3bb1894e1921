"""UploadResults and ReportStatus: what the server is told, once each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import law
import luigi

from pidml.atomic import atomic_file, write_json
from pidml.provenance import FILE_NAME as PROVENANCE
from tasks.framework import JobTask, Step
from tasks.jobstate import note_failure
from tasks.steps import BY_NAME, branches_of, others_of, owed_steps

#: A step's log on the server is not longer than this, so that no proxy refuses it.
MAX_LOG_BYTES = 16 * 2**20


class ServerTask(JobTask):
    """A task that tells the server something; its receipt is its output."""

    exclude_index = True

    #: Before any computation that is ready too: people wait for feedback.
    priority = 100

    @property
    def folder(self) -> Path:
        """Folder of the claimed job."""
        if self.job_directory is None:
            raise ValueError(f"{type(self).__name__} needs --job-id")
        return self.job_directory

    def receipt(self) -> dict[str, Any]:
        """Tell the server; return what is worth keeping."""
        raise NotImplementedError

    def run(self) -> None:
        """Tell the server and keep the receipt."""
        try:
            write_json(self.output().path, self.receipt())
        except BaseException as error:
            note_failure(self.job_directory, type(self).__name__, error)
            raise


class UploadResults(ServerTask):
    """Upload the log and the results of one step as soon as it has ended. Each file is sent once."""

    step = luigi.ChoiceParameter(choices=list(BY_NAME), description="the step whose log and results are uploaded")

    @property
    def about(self) -> Step:
        """The step, about the files that the job trains on."""
        step: Step = BY_NAME[self.step].req(self)
        return step

    def requires(self) -> Any:
        """The step, about whichever files."""
        return [self.about, *others_of(self.about)]

    def output(self) -> law.LocalFileTarget:
        """The receipts of all files of the step."""
        return law.LocalFileTarget(str(self.folder / "uploaded" / f"{self.step}-{self.about.digest}.json"))

    def receipt(self) -> dict[str, Any]:
        """Send what has not been sent; what the server cannot take now waits in the job's outbox."""
        from pidml.alicetraint.client import AliceTraINTClient
        from pidml.alicetraint.outbox import upload_files
        from pidml.alicetraint.receipts import Upload
        from pidml.server.protocol import FileType
        from pidml.settings import Settings

        number = 1 + [cls.__name__ for cls in owed_steps(self)].index(self.step)
        log = self.folder / "logs" / f"{number:02d}_{self.step}.log"
        parts = branches_of(self.about)
        beside = [part for other in others_of(self.about) for part in branches_of(other)]
        join_logs([part.log_file for part in (*parts, *beside)], log)
        files = [(log, log.name, "log"), *(found for part in parts for found in results_of(part, many=len(parts) > 1))]
        uploads = [Upload(path, name, FileType[kind.upper()], self.step) for path, name, kind in files]
        with AliceTraINTClient.of_settings(Settings.load()) as client:
            receipts = upload_files(self.folder, client, uploads)
        return {"files": [{"name": each.name, "key": each.key, "sent": each.sent} for each in receipts]}


class ReportStatus(ServerTask):
    """Set the task's status on the server once what it stands for is true."""

    status = luigi.ChoiceParameter(choices=["benchmarking", "completed"], description="the status to report")

    def requires(self) -> Any:
        """Benchmarking: the networks are trained; completed: everything was uploaded."""
        owed = [cls.__name__ for cls in owed_steps(self)]
        uploaded = [UploadResults.req(self, step=name) for name in owed]
        if self.status == "completed":
            return [*uploaded, ReportStatus.req(self, status="benchmarking")]
        return uploaded[: 1 + owed.index("Train")]

    def output(self) -> law.LocalFileTarget:
        """The receipt."""
        return law.LocalFileTarget(str(self.folder / "uploaded" / f"status-{self.status}.json"))

    def receipt(self) -> dict[str, Any]:
        """Report, after everything that waits in the outbox."""
        from pidml.alicetraint.client import AliceTraINTClient
        from pidml.alicetraint.outbox import report_status
        from pidml.server.protocol import TaskStatus
        from pidml.settings import Settings

        with AliceTraINTClient.of_settings(Settings.load()) as client:
            sent = report_status(self.folder, client, TaskStatus[self.status.upper()])
        return {"status": self.status, "sent": sent}


def join_logs(logs: list[Path], out: Path, limit: int = MAX_LOG_BYTES) -> None:
    """Write the logs of a step's branches into one file, each under its name; of a very long one both ends."""
    with atomic_file(out) as temporary, temporary.open("wb") as stream:
        for log in logs:
            if len(logs) > 1:
                stream.write(f"===== {log.stem}\n".encode())
            stream.write(_both_ends(log, limit // len(logs)) if log.is_file() else b"(made elsewhere: no log here)\n")


def _both_ends(log: Path, limit: int) -> bytes:
    size = log.stat().st_size
    if size <= limit:
        return log.read_bytes()
    with log.open("rb") as stream:
        first = stream.read(limit // 2)
        stream.seek(size - limit // 2)
        return first + f"\n===== {size - 2 * (limit // 2)} bytes left out\n".encode() + stream.read()


def results_of(step: Step, many: bool) -> list[tuple[Path, str, str]]:
    """Return (path, name on the server, kind) of the files of a step that the server's page shows.

    Networks keep the names that the server expects. Other names carry the step, so that none meets another's: the page
    tells results apart by name only.
    """
    found = []
    branch = f"{getattr(step, 'branch', 0)}_" if many else ""
    for pattern, kind in step.uploads:
        for path in sorted(step.directory.glob(pattern)):
            plain = kind == "onnx" or (not many and path.name.startswith(step.upload_prefix))
            name = path.name if plain else f"{step.upload_prefix}_{branch}{path.name}"
            if path.name != PROVENANCE:
                found.append((path, name, kind))
    return found
