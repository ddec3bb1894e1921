"""The job specification: what is accepted, what is refused, and what a refusal says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pidml.errors import PathRefused, SpecError, UnknownJob
from pidml.spec import JobSpec, job_of_task, load_job, parse_job, preset_names
from pidml.spec.deployed_fields import DEPLOYED_FIELDS
from pidml.spec.describe import describe
from pidml.spec.server_task import FLAT_KEYS
from pidml.tracks import FEATURES, STANDARDISED

DEPLOYED = {
    "bs": 512, "max_epochs": 40, "dropout": 0.1, "gamma": 0.9, "patience": 5, "patience_threshold": 0.001,
    "embed_hidden": 128, "d_model": 32, "ff_hidden": 128, "pool_hidden": 64, "num_heads": 2, "num_blocks": 2,
    "start_lr": 0.0002, "undersample": False,
}  # fmt: skip
LFN = "/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root"


def task(configuration: dict[str, Any] | None = None, path: str = LFN, **more: Any) -> dict[str, Any]:
    return {"ID": 17, "AODFiles": [{"Name": "AO2D.root", "Path": path}], "Configuration": configuration or {}, **more}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_job(name: str) -> None:
    assert load_job(name).dataset.files


def test_the_deployed_configuration_is_the_attention_preset() -> None:
    from_server, preset = job_of_task(task(DEPLOYED)), load_job("attention")
    assert from_server.model == preset.model
    assert from_server.training == preset.training


def test_the_sandbox_preset_is_what_the_sandbox_queues() -> None:
    from pidml.cli.sandbox import CONFIGURATION, FILES
    from pidml.simulation.sandbox import sandbox_lfns

    preset = load_job("sandbox")
    queued = job_of_task(
        {"ID": 1, "AODFiles": [{"Path": p} for p in sandbox_lfns(FILES)], "Configuration": CONFIGURATION}
    )
    assert queued.model_copy(update={"name": preset.name}) == preset


def test_all_deployed_keys_are_translated() -> None:
    assert {field.key for field in DEPLOYED_FIELDS} == set(FLAT_KEYS) == set(DEPLOYED)


@pytest.mark.parametrize("field", DEPLOYED_FIELDS, ids=lambda field: field.key)
def test_ends_of_the_deployed_ranges_are_accepted_and_what_lies_beyond_is_not(field: Any) -> None:
    if field.type == "bool":
        for bad in ("no", 0, None):
            with pytest.raises(SpecError, match="true or false"):
                job_of_task(task({field.key: bad}))
        return
    for good in (field.minimum, field.maximum):
        # one head goes with every width
        job_of_task(
            task({"num_heads": 1, field.key: good} if field.key != "num_heads" else {"d_model": 16, field.key: good})
        )
    for bad in (field.minimum - 1, field.maximum + 1, "1", True, None, [1], float("nan")):
        with pytest.raises(SpecError, match=f"Configuration: {field.key} = "):
            job_of_task(task({field.key: bad}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"trainig": {}}, "unknown key 'trainig' (did you mean 'training'?)"),
        ({"training": {"batch_sise": 1}}, "unknown key 'training.batch_sise' (did you mean 'batch_size'?)"),
        ({"training": {"batch_size": "12"}}, "training.batch_size = '12': input should be a valid integer"),
        ({"training": {"undersample": "no"}}, "training.undersample = 'no': input should be a valid boolean"),
        ({"training": {"max_epochs": 0}}, "training.max_epochs = 0: input should be greater than or equal to 1"),
        ({"model": {"d_model": 33}}, "d_model = 33 must be a multiple of num_heads = 2"),
        ({"model": {"dropout": float("nan")}}, "model.dropout = nan"),
        ({"model": {"dropout": 1.0}}, "model.dropout = 1.0: input should be less than 1"),
        ({"dataset": {"files": ["../x.root"]}}, "'..' is not allowed"),
        ({"dataset": {"files": ["a\nb.root"]}}, "control characters"),
        ({"dataset": {"files": ["a.root", "a.root"]}}, "files named twice: a.root"),
        ({"preparation": {"features": ["fPdgCode"]}}, "no such column: fPdgCode"),
        ({"preparation": {"validation_fraction": 0.6, "test_fraction": 0.4}}, "at least 5 %"),
        ({"preparation": {"features": ["fP"], "standardised": ["fBeta"]}},
         "standardised: not among the features: fBeta; add them to features, or take them out of standardised, or"),
        ({"dataset": {"derive": "tpc_nsigma"}}, "dataset.derive = 'tpc_nsigma': a list is needed: [tpc_nsigma]"),
        ({"dataset": {"files": "a.root"}}, "dataset.files = 'a.root': a list is needed: [a.root]"),
        ({"evaluation": {"pt_edges": 1.5}}, "evaluation.pt_edges = 1.5: a list is needed: [1.5]"),
        ({"preparation": {"features": {"fP": 1}}}, "preparation.features: a list is needed"),
        ({"preparation": {"features": None}}, "preparation.features = None: a list is needed"),
        ({"evaluation": {"pt_edges": [1]}}, "evaluation.pt_edges: list should have at least 2 items"),
        ({"training": {"precision": 16}}, "input should be '32', 'bf16-mixed' or '16-mixed'"),
        ({"training": {"precision": True}}, "input should be '32', 'bf16-mixed' or '16-mixed'"),
        ({"evaluation": {"pt_edges": [1, 1, 2]}}, "pt_edges must increase"),
        ([], "a job is a mapping"),
        ("text", "a job is a mapping"),
    ],
)  # fmt: skip
def test_a_refusal_names_key_value_and_what_is_allowed(value: Any, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_job(value, "my.yaml")
    assert text in str(caught.value)
    assert "my.yaml" in str(caught.value)


def test_features_alone_are_standardised_as_far_as_is_usual() -> None:
    given = parse_job({"preparation": {"features": ["fPt", "fSign", "fDcaZ", "fTPCSignal"]}}, "my.yaml")
    assert given.preparation.standardised == ("fTPCSignal", "fDcaZ")
    listed = parse_job({"preparation": {"features": ["fP", "fDcaZ"], "standardised": ["fP"]}}, "my.yaml")
    assert listed.preparation.standardised == ("fP",)
    assert parse_job({"preparation": {"max_tracks": 5}}, "my.yaml").preparation.standardised == STANDARDISED
    usual = parse_job({"preparation": {"features": list(FEATURES)}}, "my.yaml")
    assert usual.identity("preparation") == JobSpec().identity("preparation")


def test_precision_may_be_a_number() -> None:
    given = parse_job({"training": {"precision": 32}}, "my.yaml")
    assert given == parse_job({"training": {"precision": "32"}}, "my.yaml") == JobSpec()


def test_a_job_file_may_be_yaml_or_json_and_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    content = {"dataset": {"files": ["data/a.root", "/b.root", "https://example.org/c.root"]}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "job.json").write_text(json.dumps(content))
    from_yaml, from_json = load_job(str(tmp_path / "job.yaml")), load_job(str(tmp_path / "job.json"))
    assert from_yaml == from_json
    paths = [file.path for file in from_yaml.dataset.files]
    assert paths == [str(tmp_path / "data/a.root"), "/b.root", "https://example.org/c.root"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", "seed: 1\nseed: 2\n"), ("a.json", '{"seed": 1, "seed": 2}'), ("a.yaml", "seed: [1\n"), ("a.json", "{"),
     ("a.json", "[" * 100_000), ("a.yaml", "!!python/object/apply:os.system [id]")],
)  # fmt: skip
def test_a_damaged_job_file_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match="not well-formed"):
        load_job(str(tmp_path / name))


def test_exponents_without_a_dot_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("training: {learning_rate: 1e-3}")
    assert load_job(str(tmp_path / "a.yaml")).training.learning_rate == 1e-3


@pytest.mark.parametrize("name", ["nothing", "nothing.yaml", "../configs/jobs/sandbox"])
def test_an_unknown_job_lists_the_presets(name: str) -> None:
    with pytest.raises(UnknownJob, match="sandbox"):
        load_job(name)


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "/alice/sim/2024/../../../etc/passwd", "gopher://x/y",
     "/alice/sim/2024/LHC24/1/%2e%2e/AO2D.root", "a\x00b", "relative.root", "\\\\host\\share",
     "/alice/sim/x y/AO2D.root",
     "/alice/sim/2024/LHC24b1b/0/1/AOD/001/$(id).root"],
)  # fmt: skip
def test_paths_from_a_server_are_hostile_until_checked(path: str) -> None:
    with pytest.raises((PathRefused, SpecError)):
        job_of_task(task(path=path))


def test_local_files_only_below_the_folders_that_the_operator_opens(tmp_path: Path) -> None:
    inside, outside = tmp_path / "open" / "a.root", tmp_path / "closed" / "a.root"
    for path in (inside, outside):
        path.parent.mkdir()
        path.write_bytes(b"")
    (tmp_path / "open" / "link.root").symlink_to(outside)
    assert job_of_task(task(path=str(inside)), [tmp_path / "open"]).dataset.files[0].path == str(inside)
    for path in (outside, tmp_path / "open" / "link.root"):
        with pytest.raises(PathRefused, match="PIDML_FILE_ROOTS"):
            job_of_task(task(path=str(path)), [tmp_path / "open"])


@pytest.mark.parametrize(
    "change",
    [{"ID": "x"}, {"ID": -1}, {"AODFiles": []}, {"AODFiles": [{}]}, {"AODFiles": [{"Path": "/" + "a" * 10_000_000}]},
     {"AODFiles": [{"Path": LFN, "Size": -5}]}, {"IsData": "no"}, {"SubsampleEventCount": -1}, {"Configuration": []}],
)  # fmt: skip
def test_a_malformed_task_is_refused_in_a_short_text(change: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        job_of_task({**task(), **change})
    assert len(str(caught.value)) < 2000


def test_newer_server_fields_are_understood() -> None:
    job = job_of_task(task(IsONe=True, IsData=True, SubsampleEventCount=1000))
    assert job.producer.light_ions
    assert not job.dataset.simulation
    assert job.producer.subsample_events == 1000


NESTED = {
    "data": {"outlier_filtering_method": None, "train_size": 0.7, "test_size": 0.2, "is_run_3": True},
    "model": {
        "architecture": "attention",
        "attention": {"embed_hidden_layers": [64, 32], "embed_dim": 16, "num_heads": 4, "mlp_hidden_layers": [8]},
    },
    "training": {"start_lr": 0.003, "batch_size": 256, "lr_scheduler": "exponential",
                 "lr_schedulers": {"exponential": {"gamma": 0.8}}, "early_stopping_epoch_count": 7, "device": "cuda"},
    "validation": {"batch_size": 8192},
    "seed": 5,
}  # fmt: skip


def test_the_nested_configuration_is_understood() -> None:
    job = job_of_task(task(NESTED))
    assert (job.model.embed_hidden, job.model.d_model, job.model.num_heads, job.model.head_hidden) == (
        (64, 32),
        16,
        4,
        (8,),
    )
    assert (job.training.learning_rate, job.training.batch_size, job.training.gamma) == (0.003, 256, 0.8)
    assert job.training.patience == 7
    assert job.preparation.validation_fraction == pytest.approx(0.1)
    assert job.seed == 5


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("data", "outlier_filtering_method", "iqr"), ("data", "trian_size", 0.5), ("data", "train_size", "0.5"),
     ("model", "architecture", "quantum"), ("training", "loss", "hinge"), ("training", "learning_rate", 1.0),
     ("training", "lr_scheduler", "none"), ("model", "pretrained_model_dirpath", "/tmp/x"),
     ("training", "undersample_pions", "no"), ("training", "weight_particles_species", 1),
     ("training", "optimizer", ["adamw"]), ("training", "lr_scheduler", ["exponential"]),
     ("model", "architecture", "x" * 10_000_000), ("validation", "nonsense", 1), ("data", "is_run_3", "no")],
)  # fmt: skip
def test_nothing_in_a_nested_configuration_is_ignored_silently(section: str, key: str, value: Any) -> None:
    nested = copy.deepcopy(NESTED)
    nested[section][key] = value  # type: ignore[index]
    with pytest.raises(SpecError, match=key) as caught:
        job_of_task(task(nested))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [{"mixed_precision": "no"}, {"sweep": {"x": 1}}, {"model": {"mlp": [], "architecture": "mlp"}},
     {"model": {"architecture": "ensemble", "ensemble": {"group_ids": [1]}}},
     {"training": {"lr_scheduler": "polynomial", "lr_schedulers": {"polynomial": {"power": 2.0}}}},
     {"training": {"optimizers": {"adamw": {"betas": [0.9, 0.99]}}}}],
)  # fmt: skip
def test_settings_that_cannot_be_honoured_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        job_of_task(task({**NESTED, **change}))


def test_other_architectures_of_the_nested_configuration_are_understood() -> None:
    mlp = {
        "architecture": "mlp",
        "mlp": {"hidden_layers": [64, 32], "missing_data_strategy": "regression", "dropout": 0.2},
    }
    job = job_of_task(task({**NESTED, "model": mlp}))
    assert (job.model.architecture, job.model.hidden, job.model.imputation) == ("mlp", (64, 32), "regression")


@pytest.mark.parametrize("method", ["dann", "cdan"])
def test_domain_adaptation_of_the_nested_configuration_is_understood(method: str, tmp_path: Path) -> None:
    name, data = f"attention_{method}", "/alice/data/2024/LHC24ag/551398/AO2D.root"
    section: dict[str, Any] = {"dom_hidden_layers": [32, 16], "alpha": 0.5, "attention": NESTED["model"]["attention"]}
    nested = {**NESTED, "model": {"architecture": name, name: section}, "exp_dataset_paths": [data]}
    job = job_of_task(task(nested))
    assert job.model == job_of_task(task(NESTED)).model
    assert (job.adaptation.method, job.adaptation.hidden, job.adaptation.coefficient) == (method, (32, 16), 0.5)
    assert [file.path for file in job.adaptation.files] == [data]
    assert job_of_task(task({**nested, "model": {"architecture": name}})).adaptation.coefficient == 2.0
    for change, text in (
        ({"exp_dataset_paths": []}, "needs experimental files"),
        ({"exp_dataset_paths": [17]}, "exp_dataset_paths"),
        ({"model": {"architecture": name, name: {**section, "beta": 1}}}, "beta"),
        ({"model": NESTED["model"]}, "without domain adaptation"),
    ):
        with pytest.raises(SpecError, match=text):
            job_of_task(task({**nested, **change}))
    with pytest.raises(PathRefused):
        job_of_task(task({**nested, "exp_dataset_paths": [str(tmp_path / "x.root")]}))
    with pytest.raises(SpecError, match=r"dataset\.simulation must be true"):
        job_of_task(task(nested, IsData=True))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*FLAT_KEYS, "model", "data", "x"]), json_values, max_size=4))
def test_any_configuration_is_a_job_or_a_named_error(configuration: dict[str, Any]) -> None:
    try:
        job = job_of_task(task(configuration))
    except SpecError:
        return
    assert JobSpec.model_validate(job.model_dump()) == job


def test_every_key_is_described() -> None:
    lines = list(describe(JobSpec))
    assert len(lines) > 50
    for line in lines:
        assert line.meaning, line.key
        assert line.allowed, line.key
