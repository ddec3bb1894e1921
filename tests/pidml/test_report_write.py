from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from support.prepared_data import write_prepared

from pidml import provenance, species
from pidml.errors import CorruptFile
from pidml.evaluation.benchmark import judge
from pidml.explore import explore
from pidml.plots import comparison, performance
from pidml.report import write_report
from pidml.spec import JobSpec, parse_job
from pidml.training import TrainingSummary, train
from pidml.training.adaptation import AdaptationSummary
from pidml.training.calibration import Calibration

HOSTILE = "<script>alert('x')</script>\"'><img src=http://evil.example/x.png>"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order, and resources are listed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.resources: list[str] = []
        self.scripts: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.resources += [values[key] for key in ("src", "data", "poster", "srcset") if values.get(key)]
        if tag == "link":
            self.resources.append(values.get("href", ""))
        if tag == "a":
            self.links.append(values["href"])
        if "id" in values:
            self.ids.append(values["id"])
        assert not [key for key in values if key.startswith("on")], "inline event handler"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def scores(features):
    """Certainties that follow the TPC signal, good enough to fill a report."""
    x = np.nan_to_num(features[:, :1]) / 100
    return (1 / (1 + np.exp(-(x - np.linspace(0.2, 1.2, 6))))).astype(np.float32)


def write_training(folder, names=species.TARGET_NAMES):
    folder.mkdir()
    summary = TrainingSummary(
        tuple(names),
        39_713,
        3,
        1,
        1,
        0.123,
        12_345.0,
        75.2,
        90.0,
        HOSTILE,
        Calibration((1.0,), (0.0,), 0.2, 0.2),
        dict.fromkeys(names, 0.5),
        {},
    )
    (folder / "training.json").write_text(json.dumps(dataclasses.asdict(summary)))
    (folder / "thresholds.json").write_text(json.dumps(summary.thresholds))
    lines = ["epoch,train_loss,val_loss,lr,seconds,tracks_per_second"]
    lines += [f"{epoch},{0.5 / (epoch + 1)},{0.6 / (epoch + 1)},0.001,1.5,20000" for epoch in range(3)]
    (folder / "history.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    data = write_prepared(root / "PrepareDataset", (4_000, 500, 1_500))
    (root / "Benchmark").mkdir()
    (root / "ExploreData").mkdir()
    record = judge(data, scores, np.full(6, 0.5), JobSpec(), root / "Benchmark", draw=False)
    kaon = species.by_name("kaon")
    comparison.summary(record, root / "Benchmark" / "summary.png")
    performance.against_pt(record, kaon, root / "Benchmark" / "kaon.png")
    common = {"title": f"F1 {HOSTILE}", "caption": "c", "subject": "s"}
    record["plots"] = [
        {"file": "summary.png", "species": None} | common,
        {"file": "kaon.png", "species": "kaon"} | common,
    ]
    (root / "Benchmark" / "metrics.json").write_text(json.dumps(record))
    explore(data, root / "ExploreData")
    write_training(root / "Train")
    (root / "ExportModel").mkdir()
    (root / "ExportModel" / "manifest.json").write_text(json.dumps({
        "files": {"pion.onnx": {"sha256": "ab" * 32, "size": 1234567}, HOSTILE: {"sha256": "cd" * 32, "size": 1}},
        "check": {"tracks": 10_000, "largest_difference": 3.2e-7, "tolerance": 1e-5}, "opset": 17, "ir_version": 9,
    }))  # fmt: skip
    for name in ("Benchmark", "Train"):
        provenance.write_provenance(
            root / name, task=name, digest="0123456789ab", started=provenance.now(), seconds=61.0
        )
    return {name: root / name for name in ("PrepareDataset", "ExploreData", "Train", "Benchmark", "ExportModel")}


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
    expected = {path.read_bytes() for name in ("Benchmark", "ExploreData") for path in steps[name].glob("*.png")}
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
