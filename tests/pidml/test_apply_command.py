"""``pidml apply`` as a person runs it: from simulated AO2D files to scores, and what it says of mistakes."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import uproot
from support.small_bundle import changed_bundle, make_bundle
from support.small_job import python
from track_files import flip_bytes, make_columns, write_tables

from pidml.apply import read_provenance
from pidml.resources import ROOT
from pidml.species import TARGET_NAMES, TARGETS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def pidml(*arguments):
    return python("-m", "pidml", *map(str, arguments))


def test_from_simulated_ao2d_files_to_scores(bundle, tmp_path):
    made = pidml("simulate", "--tracks", 6000, "--files", 2, "--frames", 2, "--out", tmp_path / "sim", "--seed", 3)
    files = made.stdout.split()
    done = pidml("apply", "--bundle", bundle, *files, "--out", tmp_path / "scores.root", "--threads", 1)
    assert done.returncode == 0, done.stderr
    with uproot.open(tmp_path / "scores.root") as file:
        scores = file["pidscores"].arrays(library="np")
    summary = read_provenance(tmp_path / "scores.root")["summary"]
    for target in TARGETS:
        accepted = scores[f"fMlAccepted{target.name.capitalize()}"]
        row = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == [target.name])
        assert row[2] == f"{np.count_nonzero(accepted):,}"
    truth = scores["fPdgCode"]
    assert len(truth) == summary["tracks"] > 6000
    assert set(zip(scores["fFile"], scores["fDataFrame"], strict=True)) == {(0, 1), (0, 2), (1, 3), (1, 4)}
    assert f"{summary['tracks']:,} of 2 files, selected from {summary['rows_read']:,} in AO2D tables" in done.stdout
    assert f"{summary['rows_read']:,} of {summary['rows_read']:,} tracks read (100 %)" in done.stderr
    # an epoch on a few thousand tracks is enough to tell pions from protons
    for name, pdg in (("Pion", 211), ("Proton", 2212)):
        certainty = scores[f"fMlCert{name}"]
        assert np.median(certainty[truth == pdg]) > np.median(certainty[truth != pdg])


def test_thresholds_and_format_are_taken_from_options(bundle, tmp_path):
    given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(50)})
    options = ("--threshold", "kaon=0", "--threshold", "pion=1.0", "--format", "parquet")
    done = pidml("apply", given, "--bundle", bundle, "--out", tmp_path / "scores.dat", *options)
    assert done.returncode == 0, done.stderr
    found = read_provenance(tmp_path / "scores.dat")
    assert (found["thresholds"]["kaon"], found["thresholds"]["pion"]) == (0.0, 1.0)
    assert found["thresholds"]["proton"] == json.loads((bundle / "thresholds.json").read_text())["proton"]
    assert found["summary"]["accepted"]["kaon"] == 50


def test_no_tracks_are_no_error(bundle, tmp_path):
    given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(0)})
    done = pidml("apply", given, "--bundle", bundle, "--out", tmp_path / "scores.root")
    assert done.returncode == 0, done.stderr
    assert "0 of 1 file" in done.stdout
    assert (tmp_path / "scores.root").is_file()


def test_a_run_that_is_stopped_leaves_nothing(bundle, tmp_path):
    given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(100_000)})
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "pidml", "apply", *[given] * 50, "--bundle", bundle]
    process = subprocess.Popen(
        [*map(str, command), "--out", str(tmp_path / "out" / "scores.root")], stderr=subprocess.PIPE, text=True
    )
    assert "tracks read" in process.stderr.readline()  # a tenth is done
    assert [path.name[:12] for path in (tmp_path / "out").iterdir()] == [".scores.tmp-"]
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--bundle", "{tmp}/nothing"], 1, "[P701]"),
        (["--bundle", "{tmp}/damaged"], 1, "kaon.onnx: not the file that the manifest describes"),
        (["{tmp}/absent.root"], 1, "[P301]"),
        (["--out", "{tmp}/exists.root"], 1, "or give --force"),
        (["--threshold", "kaon"], 1, "not SPECIES=CERTAINTY"),
        (["--threads", "-1"], 2, "--threads"),
    ],
)
def test_what_is_wrong_is_said_with_an_exit_code(bundle, tmp_path, options, code, said):
    given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(5)})
    (tmp_path / "exists.root").write_text("precious")
    (tmp_path / "damaged").mkdir()
    for path in bundle.iterdir():
        (tmp_path / "damaged" / path.name).write_bytes(path.read_bytes())
    flip_bytes(tmp_path / "damaged" / "kaon.onnx", 1000)
    before = sorted(path.name for path in tmp_path.iterdir())
    defaults = ["--bundle", bundle, "--out", tmp_path / "scores.root"]  # of an option given twice the last counts
    done = pidml("apply", given, *defaults, *(option.format(tmp=tmp_path) for option in options))
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "exists.root").read_text() == "precious"


def test_python_is_used_as_the_page_says(bundle, tmp_path, monkeypatch):
    write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(500)})
    (tmp_path / "bundle").symlink_to(bundle)
    page = (ROOT / "docs" / "applying.md").read_text()
    names = {}
    monkeypatch.chdir(tmp_path)
    for snippet in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        exec(snippet, names)
    scores = names["scores"]
    for species, number in names["summary"].accepted.items():
        assert number == np.count_nonzero(scores[f"fMlAccepted{species.capitalize()}"])
    assert len(names["kaon_pt"]) == np.count_nonzero(scores["fMlAcceptedKaon"] & (scores["fMlMissing"] == 0))
    described = set(re.findall(r"f[A-Z]\w*", page.split("## Columns")[1].split("##")[0]))
    assert set(scores) - described == {
        f"fMl{kind}{name.capitalize()}" for kind in ("Cert", "Accepted") for name in TARGET_NAMES[1:-1]
    }


@pytest.mark.parametrize("outside", [None, 0.125], ids=["older bundle", "own threshold outside"])
def test_thresholds_per_bin_of_pt_are_shown_and_recorded(bundle, tmp_path, outside):
    overall = json.loads((bundle / "thresholds.json").read_text())
    bins = {name: [0.25, 0.5, 0.75] for name in TARGET_NAMES}
    table = {"pt_edges": [0.0, 0.5, 1.0, 5.0], "unit": "GeV/c", "thresholds": bins}
    rest = {} if outside is None else {"outside": dict.fromkeys(TARGET_NAMES, outside)}
    table |= rest
    changed_bundle(bundle, tmp_path / "bundle", "thresholds_pt.json", json.dumps(table).encode())
    given = write_tables(tmp_path / "tracks.root", {"DF_1": make_columns(300)})
    options = ("--out", tmp_path / "scores.root", "--threshold", "kaon=0.9")
    done = pidml("apply", given, "--bundle", tmp_path / "bundle", *options)
    assert done.returncode == 0, done.stderr
    found = read_provenance(tmp_path / "scores.root")
    by_hand = {key: each | {"kaon": 0.9} for key, each in rest.items()}
    assert found["thresholds_pt"] == table | {"thresholds": bins | {"kaon": [0.9] * 3}} | by_hand
    assert found["thresholds"] == overall | {"kaon": 0.9}
    shown = dict(words[:2] for line in done.stdout.splitlines() if len(words := line.split()) > 1)
    assert shown["kaon"] == "0.9000"
    used = (*bins["pion"], overall["pion"] if outside is None else outside)
    assert shown["pion"] == f"{min(used):.4f}–{max(used):.4f}"
    assert f"3 bins from 0 to 5 GeV/c; outside them pion {used[-1]:.4f}" in done.stdout
