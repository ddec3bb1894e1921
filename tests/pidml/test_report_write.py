from __future__ import annotations

import base64
import dataclasses
import io
import json
import re

import pytest
from PIL import Image
from support.report_steps import HOSTILE, write_steps, write_training
from support.strict_page import Page

from pidml import species
from pidml.errors import CorruptFile
from pidml.report import write_report
from pidml.report.verdict import verdict
from pidml.spec import parse_job
from pidml.training import train
from pidml.training.adaptation import AdaptationSummary


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    return write_steps(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def hostile_job():
    """A job as no check would let it pass: the report must be safe all the same."""
    job = parse_job({"dataset": {"files": [f"/data/{HOSTILE}.root", "/data/b.root"]}}, "test")
    return job.model_copy(update={"name": HOSTILE})


@pytest.fixture(scope="module")
def text(steps, hostile_job, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report(out, hostile_job, steps, {"queued by": HOSTILE})
    assert out.stat().st_size < 10e6
    return out.read_text(encoding="utf-8")


def test_page_is_well_formed_and_self_contained(text):
    page = Page(text)
    assert page.resources
    assert all(resource.startswith("data:image/png;base64,") for resource in page.resources)
    assert not re.search(r"@import|url\(|<link|<iframe|<object", text)
    assert all(link.removeprefix("#") in page.ids for link in page.links)
    assert len(set(page.ids)) == len(page.ids)


def test_images_are_the_plots(text, steps):
    found = {base64.b64decode(uri.split(",")[1]) for uri in Page(text).resources}
    expected = {
        path.read_bytes() for name in ("Benchmark", "ExploreData", "ExplainModel") for path in steps[name].glob("*.png")
    }
    assert expected < found
    assert len(found) == len(expected) + 1  # the course of the training
    for content in found:
        Image.open(io.BytesIO(content)).load()


def test_hostile_text_is_shown_not_run(text):
    page = Page(text)
    assert len(page.scripts) == 1
    assert "alert" not in page.scripts[0]
    assert "<img src=http" not in text
    assert text.count("&lt;script&gt;") >= 6  # name, file, plot, device, bundle, extra


def test_numbers_are_those_of_the_steps(text, steps):
    record = json.loads((steps["Benchmark"] / "metrics.json").read_text())
    for name in species.TARGET_NAMES:
        overall = record["species"][name]["network"]["all"]["overall"]
        tile = re.search(rf"</span> {name} <small>.*?</article>", text, re.DOTALL).group()
        for key in ("f1", "purity", "efficiency"):
            assert ("–" if overall[key] is None else f"{overall[key]:.3f}") in tile
    for expected in ("39,713", "3.2e-07", "ab" * 32, "1.2 MiB", "1 min 15 s", "0123456789ab", "reconstructed tracks"):
        assert expected in text
    assert record["not_available"]["optimum"].replace("'", "&#39;") in text


def test_feature_importance_is_that_of_the_step(text, steps):
    record = json.loads((steps["ExplainModel"] / "explanation.json").read_text())
    section = text[text.index('<section id="explanation">') : text.index('<section id="data">')]
    for name in species.TARGET_NAMES:
        found = record["shapley"][name]["all"]["fTPCSignal"]
        tab = re.search(rf'id="explain-{name}".*?</table>', section, re.DOTALL).group()
        assert f"{found['mean_abs']:.5f}" in tab
        assert "all TPC" in tab


@pytest.mark.parametrize(
    ("value", "significance", "said"),
    [
        (0.9998, -0.4, None),
        (1.0002, 0.6, "More than 100 % (K⁺, by at most 0.6 σ) is a statistical fluctuation"),
        (1.02, 4.2, "More than 100 % (K⁺, by up to 4.2 σ) is more than a fluctuation"),
    ],
)
def test_more_than_the_optimum_is_explained(value, significance, said):
    figures = {"network": {"f1": 0.9}, "nsigma": None, "bayes": None}
    pion = figures | {"symbol": "π⁺", "ratio": {"value": 0.99, "significance": -7.0}}
    kaon = figures | {"symbol": "K⁺", "ratio": {"value": value, "significance": significance}}
    text = verdict([pion, kaon])
    assert f"99.00 % to {100 * value:.2f} %" in text
    assert ("More than" not in text) if said is None else (said in text)


def test_without_an_optimum_the_verdict_still_has_a_subject():
    tile = {"symbol": "p", "ratio": None, "network": {"f1": 0.9}, "nsigma": {"f1": 0.8}, "bayes": {"f1": 0.95}}
    assert verdict([tile]) == (
        "The network has a higher F1 than the nσ selection for 1 of 1 species. "
        "It has a higher F1 than the Bayesian selection for 0 of 1 species."
    )


def test_steps_without_output_are_left_out(hostile_job, steps, tmp_path):
    write_report(tmp_path / "report.html", hostile_job, dict.fromkeys(steps))
    page = Page((tmp_path / "report.html").read_text())
    assert page.ids == ["provenance"]
    write_report(tmp_path / "report.html", hostile_job, {"Train[3]": steps["Train"]})
    assert "training" in Page((tmp_path / "report.html").read_text()).ids


def test_six_networks_get_a_column_each(hostile_job, tmp_path):
    folders = {}
    for index, name in enumerate(species.TARGET_NAMES):
        folders[f"Train[{index}]"] = tmp_path / str(index)
        write_training(tmp_path / str(index), (name,))
    write_report(tmp_path / "report.html", hostile_job, folders)
    text = (tmp_path / "report.html").read_text()
    assert all(f'<th class="n">{name}</th>' in text for name in species.TARGET_NAMES)


def test_domain_adaptation_is_shown(hostile_job, tmp_path):
    folder = tmp_path / "Train"
    write_training(folder)
    write_report(tmp_path / "report.html", hostile_job, {"Train[0]": folder})
    plain = (tmp_path / "report.html").read_text()
    record = json.loads((folder / "training.json").read_text())
    record["adaptation"] = dataclasses.asdict(AdaptationSummary("cdan", 34_567, 0.6871, 0.5432))
    (folder / "training.json").write_text(json.dumps(record))
    rows = (folder / "history.csv").read_text().splitlines()
    added = ["domain_loss,domain_accuracy,coefficient", "0.6,0.62,0.1", "0.65,0.58,0.5", "0.69,0.54,1.0"]
    (folder / "history.csv").write_text("\n".join(f"{row},{more}" for row, more in zip(rows, added, strict=True)))
    write_report(tmp_path / "report.html", hostile_job, {"Train[0]": folder})
    text = (tmp_path / "report.html").read_text()
    assert text.count("<figure") == plain.count("<figure") + 1
    for shown in ("Adaptation to experimental data", "cdan", "34,567", "0.543", "0.687"):
        assert shown in text
        assert shown not in plain


@pytest.mark.parametrize(("step", "file"), [("Benchmark", "metrics.json"), ("ExportModel", "manifest.json")])
def test_damaged_output_is_named(hostile_job, steps, tmp_path, step, file):
    (tmp_path / file).write_text("{")
    with pytest.raises(CorruptFile, match=file):
        write_report(tmp_path / "report.html", hostile_job, {step: tmp_path})
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_report_of_a_real_training_and_bundle(steps, tmp_path):
    from pidml.data.prepared import PreparedDataset
    from pidml.export import export_bundle

    model, training = {"architecture": "masked-mlp", "hidden": [16]}, {"max_epochs": 2}
    job = parse_job({"model": model, "training": training, "export": {"check_tracks": 200}}, "test")
    data = PreparedDataset.open(steps["PrepareDataset"])
    (tmp_path / "Train").mkdir()
    train(data, job, species.TARGET_NAMES, tmp_path / "work", tmp_path / "Train")
    export_bundle([tmp_path / "Train"], data, job, tmp_path / "ExportModel")
    folders = {"Train[0]": tmp_path / "Train", "ExportModel": tmp_path / "ExportModel"}
    write_report(tmp_path / "report.html", job, folders)
    text = (tmp_path / "report.html").read_text()
    assert Page(text).ids[:2] == ["training", "bundle"]
    assert "antiproton.onnx" in text
