"""FetchJob: the job as it was given, and the specification made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidml.atomic import write_json
from pidml.spec.claimed import read_task
from tasks.framework import NO_JOB, Step
from tasks.index import is_indexed, renew_index


class FetchJob(Step):
    """Write ``job.json``: the server's task verbatim (or the job's name) and the full specification, defaults included.

    It also keeps the store's index, by which ``pidml ls`` and ``pidml get`` find the outputs of a job.
    """

    uploads = (("job.json", "log"),)
    upload_prefix = "fetch"

    def settings(self) -> dict[str, Any]:
        """The whole job: this step describes it."""
        source = self.job if self.job_id == NO_JOB else read_task(self.store, self.job_id)
        return {"source": source, "spec": self.spec.model_dump(mode="json")}

    def complete(self) -> bool:
        """Complete if the description is there and the index points to this job's outputs."""
        return bool(super().complete()) and is_indexed(self)

    def run(self) -> None:
        """Describe the job unless that is done, and renew the index."""
        renew_index(self)
        super().run()

    def make(self, out: Path) -> None:
        """Write ``job.json``."""
        write_json(out / "job.json", self.settings())
