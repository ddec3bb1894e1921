"""The scores are those that O2Physics gets: its evaluation is written down here once more, track by track."""

import json
from typing import get_args

import numpy as np
import onnxruntime as ort
import pytest
import uproot
from support.prepared_data import write_prepared
from support.small_bundle import make_bundle
from support.trained import trained
from track_files import old_encoding, write_tables

from pidml import tracks
from pidml.apply import apply_bundle
from pidml.export import Bundle, export_bundle
from pidml.simulation import generate_tracks
from pidml.spec.model_sections import Model
from pidml.species import TARGETS

ARCHITECTURES = get_args(Model.model_fields["architecture"].annotation)
#: What else makes a bundle's graph another: networks of their own, another objective, derived columns, adaptation.
MAKINGS = {
    "separate": {"model": {"heads": "separate"}},
    "softmax": {"architecture": "attention", "training": {"objective": "softmax"}},
    "softmax-trees": {"architecture": "boosted-trees", "training": {"objective": "softmax"}},
    "derived": {
        "architecture": "attention", "dataset": {"derive": ["tpc_nsigma"]}, "response": {"species": ["pion"]},
    },
    "adapted": {"adaptation": {"method": "cdan", "files": ["x.root"]}, "training": {"objective": "softmax"}},
}  # fmt: skip
PER_TABLE = 36


@pytest.fixture(scope="module", params=(*ARCHITECTURES, *MAKINGS))
def bundle(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param in ARCHITECTURES:
        return make_bundle(folder, request.param)
    making, prepared = dict(MAKINGS[request.param]), write_prepared(folder / "data", (4000, 2000, 100))
    if "adaptation" in making:
        making["experimental"] = write_prepared(folder / "experimental", (2000, 500, 10), 5, simulation=False)
    job, folders = trained(prepared, folder, **making)
    export_bundle(folders, prepared, job, folder / "bundle")
    return folder / "bundle"


class PidONNXModel:
    """What ``Tools/PIDML/pidOnnxModel.h`` does with a local directory; nothing of pidml is used."""

    P_LIMIT_TOF, P_LIMIT_TRD = 0.5, 0.8  # doubles, as its default limits are

    def __init__(self, directory, pdg):
        code = str(pdg) if pdg > 0 else f"0{-pdg}"
        self.session = ort.InferenceSession(directory / f"attention_model_{code}.onnx")
        self.columns = json.loads((directory / "columns_for_training.json").read_text())["columns_for_training"]
        parameters = json.loads((directory / "scaling_params.json").read_text())["data"]
        self.scaling = {name: (np.float32(mean), np.float32(std)) for name, mean, std in parameters}
        assert len(self.session.get_inputs()) == len(self.session.get_outputs()) == 1

    def values_of(self, track):
        values = []
        for name in self.columns:
            value = np.float32(track[name])
            if name in ("fTRDSignal", "fTRDPattern"):
                if not track["has_trd"] or float(track["fP"]) < self.P_LIMIT_TRD:
                    values.append(np.float32(np.nan))
                    continue
            elif name in ("fTOFSignal", "fBeta") and (not track["has_tof"] or float(track["fP"]) < self.P_LIMIT_TOF):
                values.append(np.float32(np.nan))
                continue
            if name in self.scaling:
                mean, std = self.scaling[name]
                value = (value - mean) / std
            values.append(value)
        return values

    def __call__(self, track):
        given = np.array([self.values_of(track)], np.float32)
        assert given.shape == (1, len(self.columns))
        return self.session.run(None, {self.session.get_inputs()[0].name: given})[0].ravel()[0]


def rows(path, frame, tree):
    """The tracks of a table as dictionaries, with whether TOF and TRD saw them as the disk says it."""
    with uproot.open(path) as file:
        columns = file[f"{frame}/{tree}"].arrays(library="np")
    for index in range(len(columns["fP"])):
        track = {name: values[index] for name, values in columns.items()}
        track["has_tof"] = not np.isnan(track["fBeta"]) and track["fBeta"] != -999
        track["has_trd"] = track["fTRDPattern"] != 0
        yield track


def on_disk(seed, truth):
    """Simulated tracks of every missing pattern as O2 writes them, some of them at and beside the momentum limits."""
    simulated = generate_tracks(PER_TABLE, seed).columns
    columns = {c.name: np.nan_to_num(simulated[c.name], nan=0.0) if c.dtype == "u1" else simulated[c.name]
               for c in tracks.TRAINING_COLUMNS if c.name in simulated}  # fmt: skip
    columns = {name: np.array(values).astype(tracks.COLUMNS[name].dtype) for name, values in columns.items()}
    for index, limit in enumerate((0.5, 0.8)):
        value = np.float32(limit)
        columns["fP"][3 * index : 3 * index + 3] = [
            np.nextafter(value, np.float32(0)),
            value,
            np.nextafter(value, value * 2),
        ]
    there = slice(0, 6)  # these have every detector
    columns["fTRDPattern"][there], columns["fTRDSignal"][there] = 21, 3.5
    columns["fTOFSignal"][there], columns["fBeta"][there] = 15_000, 0.9
    return columns if truth else {k: v for k, v in columns.items() if k not in tracks.TRUTH_COLUMNS}


def full(columns, old_names):
    """The same tracks as in a table of everything, with the further columns that O2Physics writes."""
    further = {c.name: np.zeros(PER_TABLE, np.float32) for c in tracks.FULL_COLUMNS if c.name not in columns}
    further = {k: v for k, v in further.items() if k not in tracks.TRUTH_COLUMNS}
    spelled = {new: old for old, new in tracks.OLD_NAMES.items()} if old_names else {}
    for hypothesis in tracks.HYPOTHESES:
        further[f"fTOFNSigma{hypothesis}"][:] = -999
    return {spelled.get(name, name): values for name, values in (further | columns).items()}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Four kinds of tables, each encoding of missing values, in two files; DF_ numbers out of order."""
    folder = tmp_path_factory.mktemp("mixed")
    written = {
        (0, 7): ("O2pidtracksmcml", on_disk(1, truth=True)),
        (0, 12): ("O2pidtracksmcml", old_encoding(on_disk(2, truth=True))),
        (1, 3): ("O2pidtracksdataml", old_encoding(on_disk(3, truth=False))),
        (2, 9): ("O2pidtracksmc", full(on_disk(4, truth=True), old_names=True)),
        (3, 9): ("O2pidtracksdata", full(old_encoding(on_disk(5, truth=False)), old_names=False)),
    }
    paths = [folder / f"{name}.root" for name in ("mcml", "dataml", "mc", "data")]
    for number, path in enumerate(paths):
        frames = {f"DF_{frame}": columns for (file, frame), (_, columns) in reversed(written.items()) if file == number}
        tree = next(tree for (file, _), (tree, _) in written.items() if file == number)
        write_tables(path, frames, tree)
    return paths, {place: tree for place, (tree, _) in written.items()}


def test_scores_are_what_o2physics_gets_track_by_track(bundle, mixed, tmp_path):
    paths, places = mixed
    summary = apply_bundle(Bundle.open(bundle, threads=1), paths, tmp_path / "scores.root", chunk=25)
    with uproot.open(tmp_path / "scores.root") as file:
        scores = file["pidscores"].arrays(library="np")
    assert summary.tracks == len(scores["fRow"]) == PER_TABLE * len(places)
    models = {target.name: PidONNXModel(bundle, target.pdg) for target in TARGETS}
    thresholds = json.loads((bundle / "thresholds.json").read_text())
    done = 0
    for (file_number, frame), tree in places.items():
        for row, track in enumerate(rows(paths[file_number], f"DF_{frame}", tree)):
            assert (scores["fFile"][done], scores["fDataFrame"][done], scores["fRow"][done]) == (
                file_number,
                frame,
                row,
            )
            assert scores["fP"][done] == track["fP"]
            assert scores["fPt"][done] == track["fPt"]
            hidden = {name for name, value in zip(models["pion"].columns, models["pion"].values_of(track), strict=True)
                      if np.isnan(value)}  # fmt: skip
            assert scores["fMlMissing"][done] == ("fBeta" in hidden) + 2 * ("fTRDPattern" in hidden)
            for name, model in models.items():
                score = scores[f"fMlCert{name.capitalize()}"][done]
                assert abs(score - model(track)) < 1e-5, (name, done)
                assert scores[f"fMlAccepted{name.capitalize()}"][done] == (score >= np.float32(thresholds[name]))
            done += 1
    assert done == summary.tracks
    assert set(scores["fMlMissing"]) == {0, 1, 2, 3}


def test_tracks_at_the_limits_keep_their_detectors(mixed, tmp_path, bundle):
    apply_bundle(Bundle.open(bundle, threads=1), mixed[0][:1], tmp_path / "scores.root")
    with uproot.open(tmp_path / "scores.root") as file:
        missing = file["pidscores"]["fMlMissing"].array(library="np")
    assert missing[:6].tolist() == [3, 2, 2, 2, 0, 0]
