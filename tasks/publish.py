"""PublishCCDB: the networks where O2Physics finds them, with the validity of the runs they are for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import law
import luigi

from pidml import provenance
from pidml.atomic import write_json
from pidml.errors import PidmlError
from tasks.export import ExportModel
from tasks.framework import JobTask
from tasks.jobstate import note_failure

DEFAULT_CCDB = "https://alice-ccdb.cern.ch"


class PublishCCDB(JobTask):
    """Upload six networks and the two JSON files that O2Physics reads with them to CCDB. Each file is sent once."""

    path = luigi.Parameter(description="folder in CCDB, for example Users/m/me/PIDML")
    ccdb = luigi.Parameter(default="", description=f"address of CCDB; default: PIDML_CCDB_URL, or {DEFAULT_CCDB}")
    run_ccdb = luigi.Parameter(
        default="", description="address of the CCDB that knows the runs, if it is another one (test instances)"
    )
    first_run = luigi.IntParameter(default=0, description="first run of the validity; default: of the job's files")
    last_run = luigi.IntParameter(default=0, description="last run of the validity; default: of the job's files")
    dry_run = luigi.BoolParameter(
        default=False, significant=False, description="print what would be sent; send nothing"
    )

    interactive_params: ClassVar[list[str]] = [*law.Task.interactive_params, "dry_run"]

    @property
    def base(self) -> str:
        """Address of CCDB."""
        from pidml.ccdb.client import check_base

        return check_base(self.ccdb or os.environ.get("PIDML_CCDB_URL") or DEFAULT_CCDB)

    @property
    def runs(self) -> tuple[int, int]:
        """First and last run of the validity."""
        from pidml.ccdb.objects import first_and_last_run

        paths = (file.path for file in self.spec.dataset.files)
        return first_and_last_run(paths, self.first_run, self.last_run)

    def settings(self) -> dict[str, Any]:
        """Where to publish, and for which runs; of the job's files only their run numbers count."""
        return {"ccdb": self.base, "path": self.path, "runs": list(self.runs), "run_ccdb": self.run_ccdb}

    def upstream(self) -> list[Any]:
        """The bundle."""
        return [ExportModel.req(self)]

    def requires(self) -> Any:
        """The bundle."""
        return self.upstream()

    @property
    def folder(self) -> Path:
        """Folder of the receipts; beside the outputs of steps, because it must outlive them."""
        return self.store.root / "published" / self.digest

    def output(self) -> dict[str, law.LocalFileTarget]:
        """One receipt per file."""
        from pidml.ccdb.objects import FILES

        return {name: law.LocalFileTarget(str(self.folder / f"{Path(name).stem}.json")) for name in FILES}

    def run(self) -> None:
        """Ask for the validity, then send what has no receipt."""
        try:
            self._publish()
        except BaseException as error:
            note_failure(self.job_directory, type(self).__name__, error)
            raise

    def _publish(self) -> None:
        from pidml.ccdb.client import CcdbClient, check_place
        from pidml.ccdb.objects import objects_of_bundle

        objects = objects_of_bundle(self.upstream()[0].directory)
        for each in objects:
            check_place(self.path, each.name)
        with CcdbClient(self.base, self._access()) as client:
            validity = self._validity()
            for each in objects:
                receipt = self.folder / f"{each.name}.json"
                if _sent(receipt) == each.sha256:
                    continue
                stored = client.upload(self.path, each.name, validity, each.file)
                write_json(receipt, each.receipt(self.base, self.path, validity, stored) | {"sent": provenance.now()})
                print(f"published {stored.url} ({each.size} B)", flush=True)  # noqa: T201 - for people

    def _access(self) -> Any:
        from pidml.ccdb.access import Access

        return Access.from_env(os.environ)

    def _validity(self) -> Any:
        """Return the validity; it is asked for once, so that a rerun after a failure gives all files the same."""
        from pidml.ccdb.client import CcdbClient, Validity
        from pidml.ccdb.objects import validity_of_runs

        record = self.folder / "validity" / "interval.json"
        if record.is_file():
            return Validity(**json.loads(record.read_text(encoding="utf-8")))
        with CcdbClient(self.run_ccdb or self.base, self._access()) as client:
            validity = validity_of_runs(client, *self.runs)
        write_json(record, {"start": validity.start, "end": validity.end})
        return validity

    def _dry_run(self, _: Any) -> None:
        """Print what would be sent."""
        from pidml.ccdb.client import CcdbClient, check_place
        from pidml.ccdb.objects import FILES, objects_of_bundle, validity_of_runs

        try:
            with CcdbClient(self.run_ccdb or self.base, self._access()) as client:
                validity = validity_of_runs(client, *self.runs)
            bundle = self.upstream()[0]
            sizes = (
                {each.file.name: each.size for each in objects_of_bundle(bundle.directory)} if bundle.complete() else {}
            )
            print(f"runs {self.runs[0]} to {self.runs[1]}: {validity.start} to {validity.end} ms")  # noqa: T201
            for name in FILES:
                stem = Path(name).stem
                check_place(self.path, stem)
                state = "sent already" if (self.folder / f"{stem}.json").is_file() else "would be sent"
                size = f"{sizes[name]} B" if name in sizes else "not exported yet"
                url = f"{self.base}/{self.path}/{stem}/{validity.start}/{validity.end}"
                print(f"{url} ← {name} ({size}): {state}")  # noqa: T201
        except PidmlError as error:
            print(error, flush=True)  # noqa: T201
            law.util.abort(exitcode=40)


def _sent(receipt: Path) -> str:
    """Return the checksum of the content that a receipt is for; empty if there is none."""
    try:
        return str(json.loads(receipt.read_text(encoding="utf-8"))["sha256"])
    except FileNotFoundError:
        return ""
