import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml import tracks
from pidml.errors import BundleError, ExportError, MissingColumn
from pidml.export import Bundle, export_bundle, write
from pidml.export.verify import check_sample, verify
from pidml.simulation import generate_tracks
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import load_classifier, train

torch.set_num_threads(1)
TREES = ("boosted-trees", "random-forest")
ARCHITECTURES = ("masked-mlp", "attention", "ensemble", "mlp", *TREES)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (6000, 3000, 3000))


def make(prepared, folder, architecture, objective="binary"):
    job = small_job(architecture, max_epochs=1, objective=objective)
    (folder / "trained").mkdir(parents=True)
    train(prepared, job, TARGET_NAMES, folder / "work", folder / "trained")
    summary = export_bundle([folder / "trained"], prepared, job, folder / "bundle")
    return folder, summary


@pytest.fixture(scope="module", params=ARCHITECTURES)
def made(request, prepared, tmp_path_factory):
    objective = "softmax" if request.param in ("masked-mlp", "ensemble") else "binary"
    return make(prepared, tmp_path_factory.mktemp(request.param), request.param, objective)


def test_the_bundle_holds_what_it_should(made):
    folder, summary = made
    bundle = folder / "bundle"
    names = {path.name for path in bundle.iterdir()}
    expected = {f"{name}.onnx" for name in TARGET_NAMES} | {"pid.onnx", "README", "manifest.json"}
    expected |= {f"attention_model_{code}.onnx" for code in ("211", "321", "2212", "0211", "0321", "02212")}
    expected |= {"columns_for_training.json", "scaling_params.json", "thresholds.json", "model.pt"}
    assert names == expected == set(summary.files)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert set(manifest["files"]) == names - {"manifest.json"}
    for name, entry in manifest["files"].items():
        content = (bundle / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    for target in TARGETS:
        same = (bundle / f"attention_model_{target.o2_code}.onnx").read_bytes()
        assert same == (bundle / f"{target.name}.onnx").read_bytes()
    assert summary.largest_difference <= 1e-5
    assert summary.checked_tracks == 3000


def test_files_are_what_old_runtimes_read(made):
    folder, _ = made
    for path in (folder / "bundle").glob("*.onnx"):
        model = onnx.load(path)
        assert model.ir_version == 9
        trees = json.loads((folder / "bundle" / "manifest.json").read_text())["architecture"] in TREES
        expected = {"": 17} | ({"ai.onnx.ml": 1} if trees else {})
        assert {each.domain: each.version for each in model.opset_import} == expected
        assert all(not each.external_data for each in model.graph.initializer)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        (entry,), (result,) = session.get_inputs(), session.get_outputs()
        assert (entry.type, entry.shape) == ("tensor(float)", ["batch", 16])
        assert (result.type, result.shape[0]) == ("tensor(float)", "batch")
        for batch in (1, 2, 7, 1000):
            given = session.run(None, {entry.name: np.full((batch, 16), np.nan, np.float32)})[0]
            assert given.shape == (batch, 6 if path.stem == "pid" else 1)
            assert np.isfinite(given).all()


def as_o2physics(bundle, target, columns, track):
    """Evaluate one track as O2Physics' PidONNXModel does: files read and values prepared by its rules, batch of one."""
    names = json.loads((bundle / "columns_for_training.json").read_text())["columns_for_training"]
    scaling = {
        name: (mean, std) for name, mean, std in json.loads((bundle / "scaling_params.json").read_text())["data"]
    }
    momentum, values = columns["fP"][track], []
    for name in names:
        value = np.float32(columns[name][track])
        without_trd = np.isnan(columns["fTRDPattern"][track]) or momentum < 0.8
        without_tof = np.isnan(columns["fBeta"][track]) or momentum < 0.5
        if (name in ("fTRDSignal", "fTRDPattern") and without_trd) or (name in ("fTOFSignal", "fBeta") and without_tof):
            value = np.float32(np.nan)
        mean, std = scaling.get(name, (0.0, 1.0))
        values.append((value - np.float32(mean)) / np.float32(std))
    session = ort.InferenceSession(
        bundle / f"attention_model_{target.o2_code}.onnx", providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: np.array([values], np.float32)})[0][0, 0]


def test_track_by_track_from_the_files_equals_bundle_and_torch(made):
    folder, _ = made
    columns = generate_tracks(40, 21).columns
    bundle = Bundle.open(folder / "bundle", threads=1)
    together = bundle.predict_columns(columns)
    for index, target in enumerate(TARGETS):
        single = [as_o2physics(folder / "bundle", target, columns, track) for track in range(0, 40, 4)]
        np.testing.assert_allclose(single, together[::4, index], atol=1e-5)
    torch_says = load_classifier(folder / "trained").predict(bundle.matrix(columns))
    np.testing.assert_allclose(together, torch_says, atol=1e-5)
    assert len(set(tracks.feature_pattern(bundle.matrix(columns), bundle.features))) >= 3


def test_bundle_reads_old_encodings_and_applies_limits(made):
    folder, _ = made
    columns = {name: np.array(values) for name, values in generate_tracks(300, 22).columns.items()}
    bundle = Bundle.open(folder / "bundle", threads=1)
    expected = bundle.predict_columns(columns)
    old = dict(columns)
    for name in ("fTOFSignal", "fBeta"):
        old[name] = np.where(np.isnan(columns[name]), -999, columns[name]).astype(np.float32)
    old["fTRDPattern"] = np.nan_to_num(columns["fTRDPattern"]).astype(np.uint8)
    np.testing.assert_array_equal(bundle.predict_columns(old), expected)
    slow = columns["fP"] < 0.5
    assert slow.any()
    assert np.isnan(bundle.matrix(columns)[slow, bundle.features.index("fBeta")]).all()
    accepted = bundle.accepted(expected)
    cuts = np.array([bundle.thresholds[name] for name in TARGET_NAMES])
    np.testing.assert_array_equal(accepted, expected >= cuts.astype(np.float32))
    assert bundle.predict_columns({name: values[:0] for name, values in columns.items()}).shape == (0, 6)


def test_what_does_not_fit_is_named(made):
    folder, _ = made
    bundle = Bundle.open(folder / "bundle", threads=1)
    columns = dict(generate_tracks(5, 1).columns)
    del columns["fDcaZ"], columns["fBeta"]
    with pytest.raises(MissingColumn, match="needs fBeta, fDcaZ"):
        bundle.predict_columns(columns)
    with pytest.raises(BundleError, match=r"\(tracks, 16\) needed"):
        bundle.predict(np.zeros((3, 15), np.float32))


@pytest.mark.parametrize("damage", ["absent", "changed", "no manifest"])
def test_damaged_bundles_are_refused(made, tmp_path, damage):
    folder, _ = made
    copy = shutil.copytree(folder / "bundle", tmp_path / "copy")
    if damage == "absent":
        (copy / "kaon.onnx").unlink()
    elif damage == "changed":
        content = bytearray((copy / "kaon.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (copy / "kaon.onnx").write_bytes(content)
    else:
        (copy / "manifest.json").unlink()
    with pytest.raises(BundleError, match="manifest" if damage == "no manifest" else "kaon.onnx"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda manifest: {}, "files, momentum_limits, species"),
        (lambda manifest: [1], "files, momentum_limits, species"),
        (lambda manifest: {**manifest, "files": {"README": manifest["files"]["README"]}}, r"of pid\.onnx"),
        (lambda manifest: {k: v for k, v in manifest.items() if k != "momentum_limits"}, "of momentum_limits"),
    ],
)
def test_a_manifest_that_leaves_something_out_is_refused(made, tmp_path, change, named):
    folder, _ = made
    copy = shutil.copytree(folder / "bundle", tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(change(manifest)))
    with pytest.raises(BundleError, match=named):
        Bundle.open(copy)


def test_reading_a_bundle_needs_no_torch():
    code = "import sys, pidml.export; assert 'torch' not in sys.modules, 'torch'; pidml.export.export_bundle"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_separate_networks_make_one_bundle(prepared, tmp_path):
    job, outs = small_job(max_epochs=1), []
    for name in reversed(TARGET_NAMES):
        outs.append(tmp_path / name)
        outs[-1].mkdir()
        train(prepared, job, [name], tmp_path / f"{name}.work", outs[-1])
    export_bundle(outs, prepared, job, tmp_path / "bundle")
    features = prepared.split("test").features
    given = Bundle.open(tmp_path / "bundle", threads=1).predict(features)
    for index, name in enumerate(TARGET_NAMES):
        np.testing.assert_allclose(given[:, [index]], load_classifier(tmp_path / name).predict(features), atol=1e-5)
    with pytest.raises(ExportError, match="no network for pion"):
        export_bundle(outs[:-1], prepared, job, tmp_path / "incomplete")


def test_check_sample_has_every_missing_pattern(prepared):
    patterns = tracks.feature_pattern(check_sample(prepared, 1000), prepared.features)
    assert np.bincount(patterns, minlength=4).min() >= 50


def test_an_export_that_differs_or_fails_is_refused(made, prepared, tmp_path):
    folder, _ = made
    classifier = load_classifier(folder / "trained")
    sample = classifier.scaling.apply(check_sample(prepared, 500))
    network = folder / "bundle" / "pion.onnx"
    assert verify({network: [0]}, classifier.module, sample, 1e-5) <= 1e-5
    with pytest.raises(ExportError, match="differ from the trained one"):
        verify({network: [1]}, classifier.module, sample, 1e-5)
    with pytest.raises(ExportError, match=r"gives float32 \(500, 1\)"):
        verify({network: [0, 1]}, classifier.module, sample, 1e-5)
    baked = onnx.load(network)
    baked.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(baked, tmp_path / "baked.onnx")
    with pytest.raises(ExportError, match="does not run at batch"):
        verify({tmp_path / "baked.onnx": [0]}, classifier.module, sample, 1e-5)


def test_export_task_fails_when_the_network_is_not_reproduced(made, prepared, tmp_path, monkeypatch):
    folder, _ = made
    original = write.write_onnx

    def disturbed(module, features, path, settings, note):
        broken = torch.nn.Sequential(module, torch.nn.Hardtanh(0.0, 0.1)).eval()
        original(broken if path.stem == "pion" else module, features, path, settings, note)

    monkeypatch.setattr(write, "write_onnx", disturbed)
    classifier = load_classifier(folder / "trained")
    largest = classifier.predict(check_sample(prepared, 10_000))[:, TARGET_NAMES.index("pion")].max()
    assert largest > 0.2
    with pytest.raises(ExportError, match="differ"):
        export_bundle([folder / "trained"], prepared, small_job(), tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "manifest.json").exists()
