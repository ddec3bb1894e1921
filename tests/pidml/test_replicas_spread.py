"""The spread of replicas: figures as Benchmark counts them, statistics as NumPy and SciPy compute them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from support.prepared_data import write_prepared
from support.small_training import small_job
from support.strict_page import Page

from pidml.data.folds import HELD_OUT, Fold, FoldedDataset
from pidml.data.prepared import PreparedDataset
from pidml.evaluation.benchmark import run_benchmark
from pidml.evaluation.working_points import read_working_points
from pidml.plots import spread as plots
from pidml.replicas.figures import FIGURES
from pidml.replicas.plan import Replica, others, own
from pidml.replicas.spread import measure_spread, spread_of, summary_lines
from pidml.report import write_report
from pidml.spec import JobSpec
from pidml.species import TARGET_NAMES, TARGETS
from pidml.training import load_classifier, train

pytestmark = pytest.mark.usefixtures("one_thread")


def replicated(**settings: Any) -> JobSpec:
    thresholds = {"mode": "efficiency", "target": 0.9, "per_pt": True, "pt_edges": [0.0, 0.6, 5.0]}
    job = small_job(max_epochs=2).model_dump(mode="json")
    return JobSpec.model_validate(job | {"replicas": settings, "thresholds": thresholds})


class Trained:
    """A job with three seeds and two folds, its trainings and their spread."""

    def __init__(self, folder: Path) -> None:
        self.job, self.out = replicated(seeds=3, folds=2), folder / "out"
        self.data = write_prepared(folder / "set", (6000, 3000, 4000))
        self.folders: dict[Replica, list[Path]] = {}
        for number, replica in enumerate((own(self.job), *others(self.job))):
            # one of them in two parts, as separate heads are
            parts = (TARGET_NAMES[:2], TARGET_NAMES[2:]) if number == 1 else (TARGET_NAMES,)
            self.folders[replica] = [folder / f"{number}-{part}" for part in range(len(parts))]
            for species, to in zip(parts, self.folders[replica], strict=True):
                to.mkdir()
                train(self.dataset(replica), replica.job(self.job), species, to.with_suffix(".work"), to)
        self.out.mkdir()
        self.record = measure_spread(self.data, self.folders, self.job, self.out)

    def dataset(self, replica: Replica) -> PreparedDataset:
        return FoldedDataset.without(self.data, replica.fold) if replica.fold else self.data


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


def test_replicas_are_those_asked_for_and_stay_when_more_are() -> None:
    assert others(replicated()) == ()
    few, many = others(replicated(seeds=3, folds=2)), others(replicated(seeds=5, folds=2))
    assert few == (Replica(43), Replica(44), Replica(42, Fold(1, 2)), Replica(42, Fold(2, 2)))
    assert set(few) < set(many)
    assert set(many) - set(few) == {Replica(45), Replica(46)}
    last = replicated(seeds=3).model_copy(update={"seed": 2**31 - 1})
    assert [replica.seed for replica in others(last)] == [0, 1]


def test_the_job_s_own_training_is_judged_as_benchmark_does(trained: Trained, tmp_path: Path) -> None:
    metrics = run_benchmark(trained.data, trained.folders[own(trained.job)], trained.job, tmp_path)
    for name in TARGET_NAMES:
        benchmark = metrics["species"][name]["network"]["all"]["overall"]
        found = trained.record["replicas"][0]["figures"]["test"][name]
        assert found == pytest.approx({figure: benchmark[figure] for figure in FIGURES}, abs=1e-12)


@pytest.mark.parametrize("sample", ["test", HELD_OUT])
def test_a_fold_is_judged_with_its_own_thresholds(trained: Trained, sample: str) -> None:
    replica = Replica(42, Fold(2, 2))
    folded, folders = trained.dataset(replica), trained.folders[replica]
    tracks = folded.split(sample)
    scores = load_classifier(folders).predict(np.asarray(tracks.features))
    points = read_working_points(folders, folded, trained.job.thresholds)
    selected = scores >= points.at(np.asarray(tracks.column("fPt")))
    (record,) = [each for each in trained.record["replicas"] if each["fold"] == "fold 2 of 2"]
    for position, target in enumerate(TARGETS):
        truth = np.asarray(tracks.pdg) == target.pdg
        assert record["figures"][sample][target.name] == pytest.approx(
            {
                "f1": f1_score(truth, selected[:, position]),
                "purity": precision_score(truth, selected[:, position]),
                "efficiency": recall_score(truth, selected[:, position]),
                "auc": roc_auc_score(truth, scores[:, position]),
            }
        )


def test_the_spread_is_that_of_the_replicas(trained: Trained) -> None:
    each, spread = pd.read_csv(trained.out / "replicas.csv"), pd.read_csv(trained.out / "spread.csv")
    assert len(each) == 6 * (3 + 2 + 2)
    assert len(spread) == 6 * 4 * 3
    assert json.loads((trained.out / "spread.json").read_text()) == trained.record
    for row in spread.itertuples():
        chosen = (each.varied == row.varied) & (each["sample"] == row.sample) & (each.species == row.species)
        values = each.loc[chosen, row.figure].to_numpy()
        assert row.replicas == len(values) == (3 if row.varied == "seeds" else 2)
        assert [row.mean, row.std, row.min, row.max] == pytest.approx(
            [np.mean(values), np.std(values, ddof=1), min(values), max(values)], rel=1e-4, abs=1e-6
        )
        assert np.isnan(row.least_difference) == (row.varied == "folds")
        nested = trained.record["spread"][row.varied][row.sample][row.species][row.figure]
        assert nested["std"] == pytest.approx(row.std, rel=1e-4, abs=1e-7)
    assert (spread[spread.varied == "seeds"].groupby("figure")["std"].max() > 0).all(), "seeds must matter"


def test_trainings_that_differ_by_chance_alone_are_rarely_further_apart_than_the_least_difference() -> None:
    rng = np.random.default_rng(3)
    closer = 0
    for _ in range(4000):
        limit = spread_of(rng.normal(0.9, 0.01, 4), independent=True)["least_difference"]
        closer += abs(np.subtract(*rng.normal(0.9, 0.01, 2))) < limit
    assert abs(closer / 4000 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)
    assert spread_of([0.1, 0.4], independent=True)["least_difference"] == pytest.approx(stats.t.ppf(0.975, 1) * 0.3)


def test_what_is_not_there_is_left_out(trained: Trained, tmp_path: Path) -> None:
    folders = {replica: to for replica, to in trained.folders.items() if replica.fold or replica == own(trained.job)}
    record = measure_spread(trained.data, folders, trained.job, tmp_path)
    assert set(record["spread"]) == {"folds"}
    assert "chance" not in summary_lines(record)[0]
    assert (tmp_path / plots.FILE).read_bytes()[:4] == b"\x89PNG"


def test_the_report_shows_the_spread(trained: Trained, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", trained.job, {"MeasureSpread": trained.out})
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert {"replicas", "provenance"} == set(page.ids)
    assert "#replicas" in page.links
    shown = {base64.b64decode(uri.split(",")[1]) for uri in page.resources}
    assert (trained.out / plots.FILE).read_bytes() in shown
    titles = re.findall(r'<th class="n">(.*?)</th>', text)
    assert titles[:3] == ["F1, seeds", "F1, folds", "F1, folds, held-out tracks"]
    for name in TARGET_NAMES:
        row = re.search(rf"<tr><th>\S+ {name}</th>.*?</tr>", text, re.DOTALL)
        assert row is not None
        for varied, sample in (("seeds", "test"), ("folds", "test"), ("folds", HELD_OUT)):
            for figure in ("f1", "auc"):
                own = trained.record["spread"][varied][sample][name][figure]
                assert f"{own['mean']:.5f}" in row.group()
                assert f"± {own['std']:.5f}" in row.group()
        assert row.group().count("±") == 6
        chance = trained.record["spread"]["seeds"]["test"][name]["f1"]["least_difference"]
        assert f"{chance:.5f}" in row.group()


def test_the_table_for_people_has_the_numbers(trained: Trained) -> None:
    lines = summary_lines(trained.record)
    assert " ".join(lines[0].split()) == "F1 3 seeds 2 folds 2 folds, held-out tracks chance, 95%"
    own_line = lines[1 + TARGET_NAMES.index("kaon")].split()
    kaon = trained.record["spread"]["seeds"]["test"]["kaon"]["f1"]
    assert own_line[:4] == ["kaon", f"{kaon['mean']:.5f}", "±", f"{kaon['std']:.5f}"]
    assert own_line[-2:] == ["below", f"{kaon['least_difference']:.5f}"]
