"""Identity of outputs: exactly what a step and its upstream read decides where its output lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pidml.spec import JobSpec
from pidml.spec.describe import describe
from tasks.fetch_job import FetchJob
from tasks.steps import STEPS

BASE = {
    "dataset": {
        "files": ["/alice/sim/2024/LHC24b1b/0/1/AOD/001/AO2D.root", "/alice/sim/2024/LHC24b1b/0/1/AOD/002/AO2D.root"]
    },
    "model": {"architecture": "masked-mlp"},
    "training": {"learning_rate": 0.001, "batch_size": 1024},
}

Digests = Callable[[dict[str, Any]], dict[str, str]]


@pytest.fixture
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digests:
    """Return a function from a job (as plain data) to the digests of its steps."""
    monkeypatch.setenv("PIDML_STORE", str(tmp_path / "store"))
    number = iter(range(10_000))

    def of(job: dict[str, Any]) -> dict[str, str]:
        path = tmp_path / f"job{next(number)}.yaml"
        path.write_text(yaml.safe_dump(job, sort_keys=False))
        return {step.__name__: step(job=str(path)).digest for step in STEPS if step is not FetchJob}

    return of


def changed(job: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {**job, head: changed(job.get(head, {}), rest, value) if rest else value}


def differing(digests: Digests, path: str, value: Any, base: dict[str, Any] = BASE) -> set[str]:
    before, after = digests(base), digests(changed(base, path, value))
    return {step for step in before if before[step] != after[step]}


TRAINING_AND_BELOW = {"Train", "Benchmark", "ExportModel", "Report"}
PREPARATION_AND_BELOW = {"PrepareDataset", "ExploreData"} | TRAINING_AND_BELOW


@pytest.mark.parametrize(
    ("path", "value", "reruns"),
    [
        ("training.learning_rate", 0.002, TRAINING_AND_BELOW),
        ("model.hidden", [64, 64], TRAINING_AND_BELOW),
        ("preparation.cuts.tpc_signal_max", 500.0, PREPARATION_AND_BELOW),
        ("preparation.momentum_limits.tof", 0.6, PREPARATION_AND_BELOW),
        ("producer.magnetic_field", 0.2, {"ProduceTracks"} | PREPARATION_AND_BELOW),
        ("evaluation.nsigma", 2.0, {"Benchmark", "Report"}),
        ("export.opset", 18, {"ExportModel", "Report"}),
        ("name", "another", {"Report"}),
        ("training.accelerator", "cpu", set()),
        ("training.devices", 2, set()),
        ("model.num_blocks", 3, set()),  # the attention network's, not read by this one
    ],
)
def test_a_change_reruns_what_reads_it_and_nothing_else(
    digests: Digests, path: str, value: Any, reruns: set[str]
) -> None:
    assert differing(digests, path, value) == reruns


def test_the_order_of_keys_and_spelled_out_defaults_change_nothing(digests: Digests) -> None:
    turned = {key: BASE[key] for key in reversed(BASE)} | {"training": {"batch_size": 1024, "learning_rate": 1.0e-3}}
    spelled_out = changed(BASE, "preparation.validation_fraction", 0.16)
    assert digests(BASE) == digests(turned) == digests(spelled_out)


def test_a_size_or_checksum_told_later_does_not_download_again(digests: Digests) -> None:
    files = [{"path": path, "size": 10} for path in BASE["dataset"]["files"]]
    assert differing(digests, "dataset.files", files) <= {"Report"}


def test_two_jobs_over_the_same_files_share_downloads_and_tables(digests: Digests) -> None:
    other = digests({"dataset": BASE["dataset"], "model": {"architecture": "attention"}, "seed": 7})
    ours = digests(BASE)
    assert {step for step in ours if ours[step] == other[step]} == {"DownloadAOD", "ProduceTracks"}


def test_a_file_that_two_jobs_have_in_common_is_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.download import DownloadAOD

    monkeypatch.setenv("PIDML_STORE", str(tmp_path))
    paths = BASE["dataset"]["files"]
    for name, files in (("a", paths), ("b", [paths[1]])):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"dataset": {"files": files}}))
    second_of_a = DownloadAOD(job=str(tmp_path / "a.yaml"), branch=1)
    first_of_b = DownloadAOD(job=str(tmp_path / "b.yaml"), branch=0)
    assert second_of_a.directory == first_of_b.directory


def test_a_changed_local_file_is_another_file(digests: Digests, tmp_path: Path) -> None:
    local = tmp_path / "tracks.root"
    local.write_bytes(b"one")
    job = changed(BASE, "dataset.files", [str(local)])
    before = digests(job)
    local.write_bytes(b"another")
    after = digests(job)
    assert all(before[step] != after[step] for step in before)


OTHER_VALUES: dict[str, Any] = {
    "model.hidden": [64],
    "model.num_heads": 4,
    "model.d_model": 64,
    "model.architecture": "attention",
    "dataset.files": ["/alice/sim/2024/LHC24b1b/0/1/AOD/003/AO2D.root"],
    "dataset.simulation": False,
    "dataset.require": 0.5,
    "preparation.features": ["fTPCSignal", "fP"],
    "preparation.standardised": ["fTPCSignal"],
    "evaluation.pt_edges": [0.0, 1.0],
}
#: Where something runs, and what another architecture, schedule or backend reads.
WITHOUT_EFFECT = {
    "training.accelerator",
    "training.devices",
    "producer.runtime",
    "producer.container_engine",
    "producer.container_image",
    "producer.shm_segment_size",
    "producer.memory_rate_limit",
    "producer.max_hours",
}


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 if value else 0.5
    return value


@pytest.mark.parametrize("line", list(describe(JobSpec)), ids=lambda line: line.key)
def test_every_setting_reruns_something_or_is_known_not_to(digests: Digests, line: Any) -> None:
    key = line.key
    default: Any = JobSpec()
    for name in key.split("."):
        default = getattr(default, name)
    base = BASE
    if key.startswith("model.") and key != "model.hidden":
        base = changed(BASE, "model.architecture", "attention")
    if key in OTHER_VALUES:
        value = OTHER_VALUES[key]
        base = base if key != "model.architecture" else BASE
        base = changed(base, "preparation.standardised", ["fTPCSignal"]) if key == "preparation.features" else base
        if key == "model.hidden":
            base = BASE
    elif isinstance(default, str):
        choices = [choice for choice in line.allowed.split(", ") if choice != default]
        value = choices[0] if len(choices) and "length" not in line.allowed else "another"
    elif isinstance(default, tuple):
        value = [5]
    else:
        value = another(default)
    if key in ("producer.table", "producer.chain", "producer.light_ions", "producer.o2physics_version"):
        base = changed(base, "producer.backend", "o2physics")
    assert bool(differing(digests, key, value, base)) == (key not in WITHOUT_EFFECT), key
