"""Identity of outputs: exactly what a step and its upstream read decides where its output lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from pidml.spec import JobSpec
from pidml.spec.describe import describe
from pidml.spec.model_sections import Model
from tasks.fetch_job import FetchJob
from tasks.steps import BY_NAME, STEPS, owed_steps

BASE = {
    "dataset": {
        "files": ["/alice/sim/2024/LHC24b1b/0/1/AOD/001/AO2D.root", "/alice/sim/2024/LHC24b1b/0/1/AOD/002/AO2D.root"]
    },
    "model": {"architecture": "masked-mlp"},
    "training": {"learning_rate": 0.001, "batch_size": 1024},
}
EXPERIMENTAL = ["/alice/data/2024/LHC24ag/1/AOD/001/AO2D.root"]

Digests = Callable[[dict[str, Any]], dict[str, str]]


@pytest.fixture
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digests:
    """Return a function from a job (as plain data, with a replica) to the digests of its steps."""
    monkeypatch.setenv("PIDML_STORE", str(tmp_path / "store"))
    number = iter(range(10_000))

    def of(job: dict[str, Any]) -> dict[str, str]:
        path = tmp_path / f"job{next(number)}.yaml"
        path.write_text(yaml.safe_dump({"replicas": {"seeds": 2}} | job, sort_keys=False))
        return {name: step(job=str(path)).digest for name, step in BY_NAME.items() if step is not FetchJob}

    return of


def changed(job: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {**job, head: changed(job.get(head, {}), rest, value) if rest else value}


def differing(digests: Digests, path: str, value: Any, base: dict[str, Any] = BASE) -> set[str]:
    before, after = digests(base), digests(changed(base, path, value))
    return {step for step in before if before[step] != after[step]}


TRAINING_AND_BELOW = {
    "Train", "Benchmark", "ExplainModel", "ExportModel", "TrainReplicas", "MeasureSpread", "Report",
}  # fmt: skip
PREPARATION_AND_BELOW = {"PrepareDataset", "ExploreData", "TrainTPCResponse"} | TRAINING_AND_BELOW
DERIVING = changed(BASE, "dataset.derive", ["tpc_nsigma"])


@pytest.mark.parametrize(
    ("path", "value", "reruns"),
    [
        ("training.learning_rate", 0.002, TRAINING_AND_BELOW),
        ("model.hidden", [64, 64], TRAINING_AND_BELOW),
        ("preparation.cuts.tpc_signal_max", 500.0, PREPARATION_AND_BELOW),
        ("preparation.momentum_limits.tof", 0.6, PREPARATION_AND_BELOW),
        ("producer.magnetic_field", 0.2, {"ProduceTracks"} | PREPARATION_AND_BELOW),
        ("evaluation.nsigma", 2.0, {"Benchmark", "Report"}),
        ("evaluation.explain", True, {"Report"}),
        ("evaluation.explain_tracks", 500, {"ExplainModel"}),
        ("export.opset", 18, {"ExportModel", "Report"}),
        ("name", "another", {"Report"}),
        ("replicas.seeds", 3, {"TrainReplicas", "MeasureSpread", "Report"}),
        ("replicas.folds", 3, {"TrainReplicas", "MeasureSpread", "Report"}),
        ("thresholds.mode", "purity", {"Benchmark", "ExplainModel", "MeasureSpread", "ExportModel", "Report"}),
        ("adaptation.files", EXPERIMENTAL, {"Report"}),  # there is no method
        ("adaptation.coefficient", 0.5, set()),
        ("training.accelerator", "cpu", set()),
        ("training.devices", 2, set()),
        ("model.num_blocks", 3, set()),  # the attention network's, not read by this one
    ],
)
def test_a_change_reruns_what_reads_it_and_nothing_else(
    digests: Digests, path: str, value: Any, reruns: set[str]
) -> None:
    assert differing(digests, path, value) == reruns


@pytest.mark.parametrize(
    ("path", "value", "reruns"),
    [
        ("response.epochs", 5, {"TrainTPCResponse"} | TRAINING_AND_BELOW),
        ("response.species", ["pion", "kaon", "proton"], {"TrainTPCResponse"} | TRAINING_AND_BELOW),
        ("dataset.derive", [], TRAINING_AND_BELOW),
        ("model.hidden", [64, 64], TRAINING_AND_BELOW),
        ("preparation.cuts.tpc_signal_max", 500.0, PREPARATION_AND_BELOW),
    ],
)
def test_what_a_change_reruns_where_features_are_derived(
    digests: Digests, path: str, value: Any, reruns: set[str]
) -> None:
    assert differing(digests, path, value, DERIVING) == reruns
    if path.startswith("response."):
        assert differing(digests, path, value) == {"TrainTPCResponse"}  # which no other step asks for


def test_a_job_owes_its_explanation_only_if_it_says_so(tmp_path: Path) -> None:
    from tasks.report import Report

    owed = {}
    for asked in (False, True):
        path = tmp_path / f"{asked}.yaml"
        path.write_text(yaml.safe_dump(changed(BASE, "evaluation.explain", asked)))
        report = Report(job=str(path))
        owed[asked] = owed_steps(report)
        assert ("ExplainModel" in {type(task).__name__ for task in report.upstream()}) == asked
    assert owed[False] == STEPS
    assert [step.__name__ for step in owed[True]] == [*(s.__name__ for s in STEPS[:-1]), "ExplainModel", "Report"]


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


def test_adapting_trains_anew_and_shares_samples_with_a_job_about_the_experimental_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.prepare import PrepareDataset
    from tasks.steps import outputs_of

    monkeypatch.setenv("PIDML_STORE", str(tmp_path))
    cuts = {"preparation": {"cuts": {"primaries_only": True, "tpc_signal_max": 400.0}}}
    jobs = {
        "plain": BASE | cuts,
        "dann": BASE | cuts | {"adaptation": {"method": "dann", "files": EXPERIMENTAL}},
        "other": BASE | cuts | {"adaptation": {"method": "dann", "files": ["/alice/data/2024/LHC24ag/1/b.root"]}},
        "data": {
            "dataset": {"files": EXPERIMENTAL, "simulation": False}, "preparation": {"cuts": {"tpc_signal_max": 400.0}}
        },
    }  # fmt: skip
    outputs = {}
    for name, job in jobs.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(job))
        outputs[name] = outputs_of(PrepareDataset(job=str(tmp_path / f"{name}.yaml")))
    for step in ("DownloadAOD", "ProduceTracks", "PrepareDataset"):
        assert outputs["dann"][step] == outputs["plain"][step] + outputs["data"][step]
    assert outputs["dann"]["ExploreData"] == outputs["plain"]["ExploreData"]
    trained = [outputs[name]["Train"] for name in ("plain", "dann", "other")]
    assert len({digest for (digest,) in trained}) == 3


OTHER_VALUES: dict[str, Any] = {
    "model.num_heads": 4,
    "model.d_model": 64,
    "dataset.files": ["/alice/sim/2024/LHC24b1b/0/1/AOD/003/AO2D.root"],
    "dataset.require": 0.5,
    "dataset.derive": ["tpc_nsigma"],
    "response.species": ["pion"],
    "preparation.features": ["fTPCSignal", "fP"],
    "preparation.standardised": ["fTPCSignal"],
    "evaluation.pt_edges": [0.0, 1.0],
    "thresholds.pt_edges": [0.0, 1.0],
    "adaptation.method": "cdan",
    "replicas.seeds": 3,
    "replicas.folds": 5,
    "adaptation.files": ["/alice/data/2024/LHC24ag/1/AOD/002/AO2D.root"],
    "adaptation.require": 0.5,
    "training.warm_start": __file__,  # any file: its content counts
}
#: Where something runs; what a batch job asks for (``resources``) is left out too.
WITHOUT_EFFECT = {"training.accelerator", "training.devices"} | {
    f"producer.{key}"
    for key in ("runtime", "container_engine", "container_image", "shm_segment_size", "memory_rate_limit", "max_hours")
}
ARCHITECTURES = get_args(Model.model_fields["architecture"].annotation)


def another(line: Any, value: Any) -> Any:
    """Return another allowed value of a setting."""
    if line.key in OTHER_VALUES:
        return OTHER_VALUES[line.key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 if value else 0.5
    if isinstance(value, tuple):
        return [5]
    choices = [choice for choice in line.allowed.split(", ") if choice != value]
    return "another" if "length" in line.allowed else choices[0]


def bases(key: str) -> list[dict[str, Any]]:
    """Return the jobs in which a setting may matter: any architecture, or the backend that reads it."""
    if key.startswith("producer."):
        backends = ("o2physics",) if key == "producer.table" else ("native", "o2physics")
        return [changed(BASE, "producer.backend", backend) for backend in backends]
    if key == "preparation.features":
        return [changed(BASE, "preparation.standardised", ["fTPCSignal"])]
    if key.startswith("adaptation."):
        section = {"method": "none" if key == "adaptation.method" else "cdan", "files": EXPERIMENTAL}
        return [changed(BASE, "adaptation", section)]
    if key.startswith("response."):
        return [DERIVING]
    if key in ("thresholds.target", "thresholds.pt_edges"):
        return [changed(BASE, "thresholds", {"mode": "purity", "target": 0.8, "per_pt": True})]
    if key.startswith("model."):
        return [changed(BASE, "model.architecture", architecture) for architecture in ARCHITECTURES]
    return [BASE]


@pytest.mark.parametrize("line", list(describe(JobSpec)), ids=lambda line: line.key)
def test_every_setting_reruns_something_or_is_known_not_to(digests: Digests, line: Any) -> None:
    default: Any = JobSpec()
    for name in line.key.split("."):
        default = getattr(default, name)
    effect = line.key not in WITHOUT_EFFECT and not line.key.startswith("resources.")
    value = another(line, default)
    assert any(differing(digests, line.key, value, base) for base in bases(line.key)) == effect
