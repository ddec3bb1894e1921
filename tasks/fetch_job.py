"""FetchJob: the job as it was given, the specification made of it, and where its outputs lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidml.atomic import write_json
from pidml.spec.claimed import read_task
from tasks.framework import NO_JOB, Step


class FetchJob(Step):
    """Write ``job.json``: the server's task verbatim (or the job's name) and the full specification, defaults included.

    It also keeps the store's index, by which ``pidml ls`` and ``pidml get`` find the outputs of a job.
    """

    uploads = (("job.json", "log"),)

    def settings(self) -> dict[str, Any]:
        """The whole job: this step describes it."""
        return {"source": self._source(), "spec": self.spec.model_dump(mode="json"), "outputs": self._index()}

    def _source(self) -> Any:
        return self.job if self.job_id == NO_JOB else read_task(self.store, self.job_id)

    def _index(self) -> dict[str, list[str]]:
        from tasks.steps import index_of

        return index_of(self)

    def complete(self) -> bool:
        """Complete if the description is there and the index points to this job's outputs."""
        return bool(super().complete()) and self.store.indexed(self.job_key) == self._full_index()

    def run(self) -> None:
        """Describe the job unless that is done, and renew the index."""
        if not self.output().exists():
            super().run()
        self.store.write_index(self.job_key, self._full_index())

    def _full_index(self) -> dict[str, list[str]]:
        return {"FetchJob": [self.digest], **self._index()}

    def make(self, out: Path) -> None:
        """Write ``job.json``."""
        write_json(out / "job.json", self.settings())
