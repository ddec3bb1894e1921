"""``pidml mock``: answer a queued task with canned files, to test the connection and nothing else.

The same poller, the same claim, uploads and statuses; only the job is this module run as a program.
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

from pidml.alicetraint.client import AliceTraINTClient
from pidml.alicetraint.jobs import JOB_DIR_VARIABLE, JobDirectory
from pidml.alicetraint.outbox import report_status, upload_files
from pidml.alicetraint.receipts import Upload
from pidml.atomic import atomic_file
from pidml.server.protocol import FileType, TaskStatus
from pidml.settings import Settings
from pidml.species import TARGETS

#: A picture of one pixel.
_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
_TEXT = b"This file was sent by `pidml mock` to test the connection. It is no result of a training.\n"


def mock(settings: Settings) -> int:
    """Claim one task and answer it with canned files; returns an exit code like :func:`pidml.poller.poll`.

    Raises:
        ConfigError: settings are missing, or a poller works on the store.
        ServerError: the server cannot be asked.
    """
    from pidml.poller.loop import poll

    counts = poll(settings, once=True, command=lambda _: [sys.executable, "-m", "pidml.poller.mock"])
    if counts.unsent:
        return 3
    return 0 if counts.completed and not counts.failed else 1


def main() -> int:
    """Be the job: upload one file of each kind and report every status."""
    settings = Settings.load(dotenv=None)
    job = JobDirectory(Path(os.environ[JOB_DIR_VARIABLE]))
    with AliceTraINTClient.of_settings(settings) as client:
        report_status(job.path, client, TaskStatus.TRAINING)
        upload_files(
            job.path, client, [_canned(job, "mock.log", FileType.LOG), _canned(job, "mock.png", FileType.IMAGE)]
        )
        report_status(job.path, client, TaskStatus.BENCHMARKING)
        names = [f"{species.name.lower()}.onnx" for species in TARGETS]
        upload_files(job.path, client, [_canned(job, name, FileType.ONNX) for name in names])
        report_status(job.path, client, TaskStatus.COMPLETED)
    return 0


def _canned(job: JobDirectory, name: str, file_type: FileType) -> Upload:
    path = job.path / "mock" / name
    with atomic_file(path) as temporary:
        temporary.write_bytes(_PNG if file_type is FileType.IMAGE else _TEXT)
    return Upload(path, name, file_type, "a test of the connection, no result")


if __name__ == "__main__":
    sys.exit(main())
