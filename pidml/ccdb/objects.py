"""What of a bundle goes to CCDB under which name, and the validity that its runs give it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidml.ccdb.client import CcdbClient, Stored, Validity
from pidml.errors import BundleError, SpecError
from pidml.identity import file_checksum
from pidml.species import TARGETS

#: Names of objects that O2Physics asks CCDB for: six networks and two JSON files, without extension.
NETWORKS: tuple[str, ...] = tuple(f"attention_model_{species.o2_code}" for species in TARGETS)
FILES: tuple[str, ...] = (
    *(f"{name}.onnx" for name in NETWORKS),
    "columns_for_training.json",
    "scaling_params.json",
)
_MANIFEST = "manifest.json"
_RUN = re.compile(r"^/alice/(?:sim|data)/\d{4}/[^/]+/(?:\d{1,2}/)?(\d{1,9})/")


@dataclass(frozen=True)
class Publishable:
    """A file of a bundle that O2Physics reads from CCDB.

    Attributes:
        file: path of the file.
        sha256: of its content.
        size: in B.
    """

    file: Path
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Name of the object."""
        return self.file.stem

    def receipt(self, base: str, path: str, validity: Validity, stored: Stored) -> dict[str, Any]:
        """Return what is worth keeping about its publication."""
        return {
            "ccdb": base, "path": path, "name": self.name, "from": validity.start, "until": validity.end,
            "sha256": self.sha256, "size": self.size, "url": stored.url, "location": stored.location,
        }  # fmt: skip


def objects_of_bundle(bundle: Path) -> list[Publishable]:
    """Return the files of a bundle that go to CCDB, after checking that they are what its manifest says.

    Raises:
        BundleError: a file is absent, or not the one that was verified when the bundle was made.
    """
    try:
        entries = json.loads((bundle / _MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{bundle / _MANIFEST}: no manifest of a bundle", "run ExportModel again") from error
    found = []
    for name in FILES:
        path, entry = bundle / name, entries.get(name)
        if entry is None or not path.is_file():
            raise BundleError(f"{path}: O2Physics needs this file, and the bundle does not have it", "export it again")
        checksum = file_checksum(path)
        if checksum != entry["sha256"]:
            raise BundleError(f"{path}: not the file that the manifest describes", "export the bundle again")
        found.append(Publishable(path, checksum, path.stat().st_size))
    return found


def run_of(lfn: str) -> int | None:
    """Return the run number in a logical file name; None if there is none.

    >>> run_of("/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root")
    535084
    """
    match = _RUN.match(lfn)
    return int(match[1]) if match and int(match[1]) else None


def first_and_last_run(paths: Iterable[str], first: int = 0, last: int = 0) -> tuple[int, int]:
    """Return the runs that a validity extends over.

    Args:
        paths: files of the dataset.
        first: first run, if given; 0 to take it from the files.
        last: last run, likewise.

    Raises:
        SpecError: no file tells its run, or the last run is before the first.
    """
    runs = {run for path in paths if (run := run_of(path)) is not None}
    if not runs and not (first and last):
        raise SpecError(
            "the names of the job's files do not tell their runs",
            "give --first-run and --last-run (and see that the networks fit the runs between)",
        )
    result = first or min(runs), last or max(runs)
    if result[0] > result[1]:
        raise SpecError(f"the first run ({result[0]}) is after the last ({result[1]})", "exchange them")
    return result


def validity_of_runs(client: CcdbClient, first: int, last: int) -> Validity:
    """Return the interval from the start of the first to the end of the last run."""
    validity = client.run_validity(first)
    return validity if last == first else validity.union(client.run_validity(last))
