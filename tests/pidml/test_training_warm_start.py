"""Weights to start from: those that fit are taken, all others are refused by name, and they count by content."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml import tracks
from pidml.errors import WarmStartError
from pidml.export import export_bundle
from pidml.export.files import weights_name
from pidml.spec import JobSpec, load_job
from pidml.species import TARGET_NAMES
from pidml.training import load_classifier, train
from pidml.training.fit import initial_network
from pidml.training.record import CHECKPOINT

torch.set_num_threads(1)
ARCHITECTURES = ["masked-mlp", "attention", "ensemble", "mlp"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (4000, 2000, 500))


@pytest.fixture(scope="module")
def first(prepared, tmp_path_factory):
    """Train every architecture once; returns their folders by name, each with ``out`` and ``work``."""
    folders = {}
    for name in ARCHITECTURES:
        folder = folders[name] = tmp_path_factory.mktemp(name)
        (folder / "out").mkdir()
        train(prepared, small_job(name, max_epochs=2), TARGET_NAMES, folder / "work", folder / "out")
    return folders


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_starts_where_the_other_ended(prepared, first, architecture):
    place = first[architecture] / "out"
    network = initial_network(prepared, small_job(architecture, warm_start=str(place)), TARGET_NAMES).eval()
    features = prepared.scaling.apply(np.asarray(prepared.split("test").features))
    scores = torch.sigmoid(network(torch.from_numpy(features))).detach().numpy()
    np.testing.assert_allclose(
        scores, load_classifier(place).predict(prepared.split("test").features), rtol=0, atol=1e-6
    )


def with_dropout(job, dropout):
    """Return the job with this dropout, and with at least two layers wherever there are hidden layers."""
    layers = {"embed_hidden": (16, 12, 10), "pool_hidden": (8, 6), "head_hidden": (12, 10)}
    return job.model_copy(update={"model": job.model.model_copy(update=layers | {"dropout": dropout})})


def certainties(prepared, network):
    features = prepared.scaling.apply(np.asarray(prepared.split("test").features))
    return torch.sigmoid(network.eval()(torch.from_numpy(features))).detach().numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("before", "after"), [(0.0, 0.1), (0.1, 0.0)])
def test_another_dropout_starts_from_the_same_certainties(prepared, tmp_path, architecture, before, after):
    out = tmp_path / "out"
    out.mkdir()
    job = with_dropout(small_job(architecture, max_epochs=1), before)
    train(prepared, job, TARGET_NAMES, tmp_path / "work", out)
    export_bundle([out], prepared, job, tmp_path / "bundle")
    best = torch.load(tmp_path / "work" / CHECKPOINT, weights_only=True)["callbacks"]["Recorder"]["best_state"]
    for place in (out, out / "model.pt", tmp_path / "bundle", tmp_path / "work" / CHECKPOINT):
        networks = [
            initial_network(prepared, with_dropout(small_job(architecture, warm_start=str(place)), p), TARGET_NAMES)
            for p in (before, after)
        ]
        same, other = (certainties(prepared, network) for network in networks)
        np.testing.assert_array_equal(other, same)
        if place.name == CHECKPOINT:
            assert all(torch.equal(value, best[name]) for name, value in networks[1].state_dict().items())
        else:
            np.testing.assert_array_equal(other, load_classifier(out).module.eval()(
                torch.from_numpy(prepared.scaling.apply(np.asarray(prepared.split("test").features)))
            ).detach().numpy())  # fmt: skip


def as_once_written(state):
    """Name weights as they were when a dropout of 0 was no layer: every third number is every second one."""
    renamed = {}
    for name, value in state.items():
        *place, number, kind = name.split(".")
        if place and place[-1] in ("hidden", "rest", "head", "0") and number.isdigit():
            number = str(int(number) // 3 * 2)
        renamed[".".join([*place, number, kind]) if number else name] = value
    return renamed


@pytest.mark.parametrize("architecture", ["masked-mlp", "attention", "mlp"])
def test_weights_without_dropout_of_earlier_versions_are_read(prepared, tmp_path, architecture):
    out, old = tmp_path / "out", tmp_path / "old"
    out.mkdir()
    old.mkdir()
    train(prepared, with_dropout(small_job(architecture, max_epochs=1), 0.0), TARGET_NAMES, tmp_path / "work", out)
    content = torch.load(out / "model.pt", weights_only=True)
    renamed = {name: content["state"][name] for name in content["state"] if name.count(".") == 0}
    renamed |= as_once_written({name: value for name, value in content["state"].items() if "." in name})
    assert len(renamed) == len(content["state"])
    assert renamed.keys() != content["state"].keys()
    torch.save(content | {"state": renamed}, old / "model.pt")
    features = prepared.split("test").features
    np.testing.assert_array_equal(load_classifier(old).predict(features), load_classifier(out).predict(features))
    for dropout in (0.0, 0.1):
        job = with_dropout(small_job(architecture, warm_start=str(old)), dropout)
        state = initial_network(prepared, job, TARGET_NAMES).state_dict()
        assert all(torch.equal(value, content["state"][name]) for name, value in state.items())


def test_weights_of_other_names_or_shapes_are_refused_with_the_difference(prepared, first, tmp_path):
    content = torch.load(first["masked-mlp"] / "out" / "model.pt", weights_only=True)
    path = tmp_path / "model.pt"

    def refused(**state):
        own = {name: value for name, value in (content["state"] | state).items() if value is not None}
        torch.save(content | {"state": own}, path)
        with pytest.raises(WarmStartError) as error:
            initial_network(prepared, small_job(warm_start=str(path)), TARGET_NAMES)
        assert "state_dict" not in str(error.value)
        return str(error.value)

    assert "output.bias is (5,) there, (6,) here" in refused(**{"output.bias": torch.zeros(5)})
    assert "output.bias is not there" in refused(**{"output.bias": None})
    assert "output.gain is there alone" in refused(**{"output.gain": torch.zeros(5)})


def test_a_warm_start_is_ahead_of_a_cold_one(prepared, first, tmp_path):
    settings = {"max_epochs": 1, "schedule": "constant", "learning_rate": 1e-3}
    losses = {}
    for name, place in (("cold", ""), ("warm", str(first["masked-mlp"] / "out" / "model.pt"))):
        (tmp_path / name).mkdir()
        job = small_job(warm_start=place, **settings)
        losses[name] = train(prepared, job, TARGET_NAMES, tmp_path / f"{name}.work", tmp_path / name).validation_loss
    assert losses["warm"] < 0.7 * losses["cold"]


def test_a_checkpoint_gives_the_weights_of_its_best_epoch(prepared, first):
    checkpoint = first["masked-mlp"] / "work" / CHECKPOINT
    network = initial_network(prepared, small_job(warm_start=str(checkpoint)), TARGET_NAMES)
    best = torch.load(checkpoint, weights_only=True)["callbacks"]["Recorder"]["best_state"]
    assert all(torch.equal(value, best[name]) for name, value in network.state_dict().items())


def test_a_bundle_holds_weights_to_start_from(prepared, first, tmp_path):
    job = small_job()
    export_bundle([first["masked-mlp"] / "out"], prepared, job, tmp_path / "bundle")
    places = (tmp_path / "bundle", first["masked-mlp"] / "out")
    states = [
        initial_network(prepared, small_job(warm_start=str(place)), TARGET_NAMES).state_dict() for place in places
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_trees_do_not_start_from_weights():
    with pytest.raises(ValidationError, match=r"training\.warm_start is for networks"):
        JobSpec.model_validate({"model": {"architecture": "boosted-trees"}, "training": {"warm_start": "model.pt"}})


def test_of_several_networks_each_takes_its_own(prepared, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in ("kaon", "pion"):
        (tmp_path / name).mkdir()
        train(prepared, small_job(max_epochs=1), [name], tmp_path / f"{name}.work", tmp_path / name)
        shutil.copy(tmp_path / name / "model.pt", bundle / weights_name([name]))
    network = initial_network(prepared, small_job(warm_start=str(bundle)), ["pion"])
    state = torch.load(tmp_path / "pion" / "model.pt", weights_only=True)["state"]
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with pytest.raises(WarmStartError, match=r"species is \['kaon'\] there, \['proton'\] here"):
        initial_network(prepared, small_job(warm_start=str(bundle)), ["proton"])


def test_a_regression_forgets_predictors_that_some_tracks_lack_now(prepared, first, tmp_path):
    """The TPC signal predicted TOF for the first network; now some tracks lack it."""
    again = write_prepared(tmp_path / "set", (4000, 10, 10), 8)
    path, lacking = again.path / "train" / "features.npy", again.features.index("fTPCSignal")
    features = np.load(path)
    features[::3, lacking] = np.nan
    np.save(path, features)
    warm = initial_network(again, small_job("mlp", warm_start=str(first["mlp"] / "out")), TARGET_NAMES)
    cold = initial_network(again, small_job("mlp"), TARGET_NAMES)
    assert torch.load(first["mlp"] / "out" / "model.pt", weights_only=True)["state"]["slope"][lacking].any()
    assert not warm.slope[lacking].any()
    for name in ("fill", "offset", "slope"):
        assert torch.equal(getattr(warm, name), getattr(cold, name)), name


def test_what_does_not_fit_is_refused_with_the_difference(prepared, first, tmp_path):
    place = str(first["masked-mlp"] / "out")
    with pytest.raises(WarmStartError, match=r"model\.architecture is masked-mlp there, attention here"):
        initial_network(prepared, small_job("attention", warm_start=place), TARGET_NAMES)
    with pytest.raises(WarmStartError, match=r"training\.objective is binary there, softmax here"):
        initial_network(prepared, small_job(objective="softmax", warm_start=place), TARGET_NAMES)
    job = small_job(warm_start=place)
    wider = job.model_copy(update={"model": job.model.model_copy(update={"hidden": (24, 24)})})
    with pytest.raises(WarmStartError, match=r"model.hidden is \[24, 16\] there, \[24, 24\] here"):
        initial_network(prepared, wider, TARGET_NAMES)
    fewer = write_prepared(tmp_path / "fewer", (500, 100, 10), features=tracks.FEATURES[:-1])
    with pytest.raises(WarmStartError, match="features is"):
        initial_network(fewer, job, TARGET_NAMES)
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(WarmStartError, match="holds no weights that can be read"):
        initial_network(prepared, small_job(warm_start=str(tmp_path / "model.pt")), TARGET_NAMES)


@pytest.mark.parametrize(
    "content",
    [b"species: pion\n", b"", b"PK\x03\x04 half a file", b"\x80\x04\x95 pickled", [1], {"a": 1}, {"pidml": 1}],
)
def test_a_file_without_weights_is_said_to_be_none_in_plain_words(prepared, tmp_path, content):
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WarmStartError, match="holds no weights that can be read") as error:
        initial_network(prepared, small_job(warm_start=str(path)), TARGET_NAMES)
    said = str(error.value)
    assert "name a model.pt, a last.ckpt, a bundle" in said
    assert len(said) < 600
    assert not any(word in said for word in ("weights_only", "issue", "arbitrary"))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(WarmStartError, match=f"there is no {tmp_path}/model.pt"):
        small_job(warm_start=str(tmp_path / "model.pt")).training.identity("masked-mlp")
    with pytest.raises(WarmStartError, match="holds no model"):
        small_job(warm_start=str(tmp_path)).training.identity("masked-mlp")


def test_weights_count_by_their_content_wherever_they_lie(first, tmp_path):
    source = first["masked-mlp"] / "out" / "model.pt"
    copy = tmp_path / "model.pt"
    shutil.copy(source, copy)
    identities = [small_job(warm_start=str(path)).training.identity("masked-mlp") for path in (source, copy, tmp_path)]
    assert identities[0] == identities[1] == identities[2]
    shutil.copy(first["attention"] / "out" / "model.pt", copy)
    assert small_job(warm_start=str(copy)).training.identity("masked-mlp") != identities[0]
    assert small_job().training.identity("masked-mlp")["warm_start"] == []


def test_a_relative_path_is_meant_from_the_job_file(tmp_path, monkeypatch):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"training": {"warm_start": "earlier/model.pt"}}))
    monkeypatch.chdir("/")
    assert load_job(str(tmp_path / "job.yaml")).training.warm_start == str(tmp_path / "earlier" / "model.pt")
