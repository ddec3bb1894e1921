"""A disk that is full and a quota that is used up, real ones: said with their code, nothing half-written stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.small_disk import KINDS, on_small_disk

_WRITES = """
import errno, json, os, sys
from pathlib import Path
from pidml.atomic import atomic_directory, write_text
from pidml.batch.journal import Journal
from pidml.batch.preflight import check_store
from pidml.batch.site import Site
from pidml.errors import PidmlError

store = Path(sys.argv[-1]) / "store"
write_text(store / "kept", "as it was")
journal = Journal(store / "submitted.jsonl")
journal.submitted("a", 1)
said = {}
try:
    with (store / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(os.urandom(4096))
except OSError as error:
    said["system"] = errno.errorcode[error.errno]

def directory():
    with atomic_directory(store / "output") as out:
        (out / "large").write_bytes(os.urandom(1 << 20))

def submissions():
    for number in range(100_000):
        journal.submitted(f"{number:0500d}", number)

attempts = {
    "file": lambda: write_text(store / "kept", "x" * (1 << 20)),
    "directory": directory,
    "journal": submissions,
    "check": lambda: check_store(Site(), store),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except PidmlError as error:
        said[name] = f"{error.code} {error.what}"
said["there"] = sorted(path.name for path in store.iterdir())
said["kept"] = (store / "kept").read_text()
said["known"] = journal.known()["a"]
print(json.dumps(said))
"""

_STEP = """
import json, os, subprocess, sys
from pathlib import Path
from support.small_job import law_run, write_job

folder = Path(sys.argv[-1])
store = folder / "store"
job = write_job(folder, tracks=2000, files=1, fmt="ao2d")
said = {"made": law_run(store, "DownloadAOD", "--job", str(job)).returncode}
try:
    with (folder / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(os.urandom(4096))
except OSError:
    os.truncate(folder / "filler", (folder / "filler").stat().st_size - 65536)  # for the log
done = law_run(store, "ProduceTracks", "--job", str(job))
said |= {"full": done.returncode, "text": done.stdout + done.stderr}
said["left"] = [path.name for path in (store / "ProduceTracks").iterdir() if path.is_dir()]
(folder / "filler").unlink()
said["freed"] = law_run(store, "ProduceTracks", "--job", str(job)).returncode
print(json.dumps(said))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_writes_to_a_full_disk(tmp_path: Path, kind: str) -> None:
    (tmp_path / "disk").mkdir()
    done = on_small_disk(kind, tmp_path / "disk", "-c", _WRITES)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["system"] == KINDS[kind]
    for name in ("file", "directory", "journal", "check"):
        assert said[name].startswith("P201 "), name
        assert str(tmp_path / "disk" / "store") in said[name]
    assert set(said["there"]) <= {"filler", "kept", "submitted.jsonl", ".output.lock"}, "nothing half-written stays"
    assert (said["kept"], said["known"]) == ("as it was", 1)


@pytest.mark.slow
def test_a_step_on_a_full_disk_is_explained_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    program = tmp_path / "step.py"
    program.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n{_STEP}")
    done = on_small_disk("tmpfs", tmp_path / "disk", str(program))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["made"], said["full"], said["freed"]) == (0, 40, 0), said
    assert "[P201]" in said["text"]
    assert "Traceback" not in said["text"]
    assert said["left"] == []
