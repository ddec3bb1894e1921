"""PublishCCDB through law: what is sent where, once, and what is never written down."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.ccdb_server import CcdbServer, Certificates, ccdb_server
from support.small_job import law_run, outputs, write_job

from pidml.atomic import write_json
from pidml.ccdb.objects import FILES
from pidml.export.files import COLUMNS_FILE, MANIFEST, SCALING_FILE, o2_name
from pidml.gc import find_garbage
from pidml.identity import file_checksum
from pidml.species import TARGET_NAMES
from pidml.store import Store
from tasks.publish import PublishCCDB

RUNS = {535084: (1_700_000_000_000, 1_700_003_600_000), 535099: (1_700_010_000_000, 1_700_013_600_000)}
VALIDITY = "1700000000000/1700013600000"
PLACE = "Users/m/me/PIDML"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates of a machine"))


@pytest.fixture
def server(certificates: Certificates) -> Iterator[CcdbServer]:
    with ccdb_server(certificates) as state:
        state.runs.update(RUNS)
        yield state


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: CcdbServer, certificates: Certificates) -> Path:
    """A job whose bundle is there."""
    for variable, name in (("CERT", "client.pem"), ("KEY", "client.key"), ("CA", "ca.pem")):
        monkeypatch.setenv(f"PIDML_CCDB_{variable}", str(certificates.path(name)))
    monkeypatch.setenv("PIDML_CCDB_URL", server.url)
    monkeypatch.setenv("PIDML_STORE", str(tmp_path / "store"))
    path = tmp_path / "job.yaml"
    lfns = [f"/alice/sim/2024/LHC24b1b/0/{run}/AOD/001/AO2D.root" for run in RUNS]
    path.write_text(yaml.safe_dump({"dataset": {"files": lfns}}))
    bundle = PublishCCDB(job=str(path), path=PLACE).upstream()[0].directory
    bundle.mkdir(parents=True)
    for name in FILES:
        (bundle / name).write_text(f"content of {name}")
    entries = {name: {"sha256": file_checksum(bundle / name), "size": 1} for name in FILES}
    write_json(bundle / MANIFEST, {"files": entries})
    write_json(bundle / "provenance.json", {})
    return path


def publish(job: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return law_run(job.parent / "store", "PublishCCDB", "--job", str(job), "--path", PLACE, *arguments)


def bundle_of(job: Path) -> Path:
    (found,) = outputs(job.parent / "store", ["ExportModel"])["ExportModel"]
    return found


def receipts(job: Path) -> dict[str, dict[str, object]]:
    return {p.stem: json.loads(p.read_text()) for p in (job.parent / "store" / "published").glob("*/*.json")}


def test_the_files_are_those_that_an_export_makes() -> None:
    assert {*map(o2_name, TARGET_NAMES), COLUMNS_FILE, SCALING_FILE} == set(FILES)


def test_every_file_is_published_once(job: Path, server: CcdbServer) -> None:
    result = publish(job)
    assert result.returncode == 0, result.stdout + result.stderr
    bundle = bundle_of(job)
    expected = {
        (f"/{PLACE}/{Path(name).stem}/{VALIDITY}", "blob", name, (bundle / name).read_bytes(), "client")
        for name in FILES
    }
    assert set(server.stored) == expected
    assert len(server.stored) == 8
    kept = receipts(job)
    assert sorted(kept) == sorted(Path(name).stem for name in FILES)
    antikaon = kept["attention_model_0321"]
    assert antikaon["url"] == f"{server.url}/{PLACE}/attention_model_0321/{VALIDITY}"
    assert antikaon["sha256"] == file_checksum(bundle / "attention_model_0321.onnx")
    before = len(server.requests)
    assert publish(job).returncode == 0
    assert len(server.requests) == before


def test_after_a_failure_only_what_is_missing_is_sent_with_the_same_validity(job: Path, server: CcdbServer) -> None:
    server.faults += [None, None, None, None, None, 400]
    result = publish(job)
    assert result.returncode == 40
    assert "CCDB refuses (400 said 400)" in result.stdout + result.stderr
    assert len(server.stored) == 3
    server.runs[535099] = (1_700_010_000_000, 1_700_099_999_999)  # the run's end was corrected meanwhile
    assert publish(job).returncode == 0
    assert len(server.stored) == len({path for path, *_ in server.stored}) == 8
    assert all(path.endswith(VALIDITY) for path, *_ in server.stored)


def test_another_place_or_interval_is_another_publication(job: Path, server: CcdbServer) -> None:
    for arguments in ((), ("--last-run", "535084"), ("--path", "Users/m/me/test")):
        assert publish(job, *arguments).returncode == 0
    assert len({path.rsplit("/", 3)[0] + path.rsplit("/", 1)[1] for path, *_ in server.stored}) == 3
    assert len(server.stored) == 24


def test_a_dry_run_asks_for_the_validity_and_sends_nothing(job: Path, server: CcdbServer) -> None:
    result = publish(job, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "runs 535084 to 535099: 1700000000000 to 1700013600000 ms" in result.stdout
    lines = [line for line in result.stdout.splitlines() if " ← " in line]
    assert len(lines) == 8
    assert lines[0].startswith(f"{server.url}/{PLACE}/attention_model_211/{VALIDITY} ← attention_model_211.onnx (")
    assert all(line.endswith("B): would be sent") for line in lines)
    assert {method for method, _ in server.requests} == {"HEAD"}
    assert receipts(job) == {}
    assert publish(job).returncode == 0
    assert publish(job, "--dry-run").stdout.count("sent already") == 8


def test_a_dry_run_says_what_is_wrong(job: Path, server: CcdbServer) -> None:
    result = publish(job, "--dry-run", "--first-run", "1")
    assert result.returncode == 40
    assert "CCDB knows no run 1" in result.stdout
    (bundle_of(job) / SCALING_FILE).write_text("another")
    result = publish(job, "--dry-run")
    assert result.returncode == 40
    assert "not the file that the manifest describes" in result.stdout


def test_a_bundle_that_was_changed_is_not_published(job: Path, server: CcdbServer) -> None:
    (bundle_of(job) / "attention_model_211.onnx").write_text("another")
    result = publish(job)
    assert result.returncode == 40
    assert "attention_model_211.onnx: not the file that the manifest describes" in result.stdout + result.stderr
    assert server.requests == []


def test_runs_may_be_known_to_another_ccdb(job: Path, server: CcdbServer) -> None:
    server.runs.clear()
    with ccdb_server() as production:
        production.runs.update(RUNS)
        assert publish(job, "--run-ccdb", production.url).returncode == 0
        assert [method for method, _ in production.requests] == ["HEAD", "HEAD"]
    assert len(server.stored) == 8


def test_certificate_and_key_are_written_nowhere(job: Path, server: CcdbServer, certificates: Certificates) -> None:
    secrets = [str(certificates.folder), certificates.path("client.key").read_text().splitlines()[1]]
    shown = ""
    server.faults += [403]
    for arguments in (["--dry-run"], [], []):
        result = publish(job, *arguments)
        shown += result.stdout + result.stderr
    assert len(server.stored) == 8
    written = b"".join(path.read_bytes() for path in (job.parent / "store").rglob("*") if path.is_file())
    for secret in secrets:
        assert secret not in shown
        assert secret.encode() not in written


def test_receipts_are_no_garbage(job: Path) -> None:
    assert publish(job).returncode == 0
    store = Store(job.parent / "store")
    assert not [each for each in find_garbage(store, min_age=-60) if "published" in each.path.parts]


@pytest.mark.slow
def test_a_job_from_its_tracks_to_ccdb(
    tmp_path: Path, server: CcdbServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, name in (("CERT", "client.pem"), ("KEY", "client.key"), ("CA", "ca.pem")):
        monkeypatch.setenv(f"PIDML_CCDB_{variable}", str(certificates.path(name)))
    job, store = write_job(tmp_path), tmp_path / "store"
    arguments = ["--job", str(job), "--path", PLACE, "--ccdb", server.url]
    without = law_run(store, "PublishCCDB", *arguments)
    assert without.returncode != 0
    assert "give --first-run and --last-run" in without.stdout + without.stderr
    result = law_run(store, "PublishCCDB", *arguments, "--first-run", "535084", "--last-run", "535084")
    assert result.returncode == 0, result.stdout + result.stderr
    (bundle,) = outputs(store, ["ExportModel"])["ExportModel"]
    assert {name: content for _, _, name, content, _ in server.stored} == {
        name: (bundle / name).read_bytes() for name in FILES
    }
