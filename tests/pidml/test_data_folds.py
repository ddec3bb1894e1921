"""Folds: disjoint, complete, the same every time, and trained on as if the other tracks were not there."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.prepared_data import write_prepared
from support.small_training import small_job

from pidml.data.folds import HELD_OUT, Fold, FoldedDataset, Ranges
from pidml.data.prepared import PreparedDataset, rows_of
from pidml.errors import NoTracks, SpeciesAbsent
from pidml.species import TARGET_NAMES, by_name
from pidml.training import train
from pidml.training.labels import check_labels

ARRAYS = ("features", "pdg", "aux")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return write_prepared(tmp_path_factory.mktemp("data") / "set", (5000, 2001, 500))


@given(size=st.integers(2, 10**10), of=st.integers(2, 100))
def test_folds_are_disjoint_complete_and_of_one_size(size: int, of: int) -> None:
    folds = [Fold(number, of) for number in range(1, of + 1)]
    rows = [fold.rows(size) for fold in folds]
    assert rows[0].start == 0
    assert rows[-1].stop == size
    assert all(one.stop == next_one.start for one, next_one in itertools.pairwise(rows))
    sizes = [each.stop - each.start for each in rows]
    assert max(sizes) - min(sizes) <= 1
    for fold, own in zip(folds, rows, strict=True):
        before, after = fold.others(size)
        assert (before.start, before.stop, after.start, after.stop) == (0, own.start, own.stop, size)


@given(data=st.data(), columns=st.sampled_from([(), (3,)]))
def test_ranges_are_read_like_the_array_that_they_make(data: st.DataObject, columns: tuple[int, ...]) -> None:
    arrays = [np.arange(size * 3).reshape(size, 3)[:, : columns[0] if columns else 1] for size in (7, 11)]
    arrays = [array if columns else array[:, 0] for array in arrays]
    bounds = [sorted(data.draw(st.lists(st.integers(0, len(each)), min_size=2, max_size=2))) for each in arrays]
    ranges = Ranges([(array, slice(*each)) for array, each in zip(arrays, bounds, strict=True)])
    whole = np.concatenate([array[slice(*each)] for array, each in zip(arrays, bounds, strict=True)])
    assert (len(ranges), ranges.shape, ranges.dtype) == (len(whole), whole.shape, whole.dtype)
    np.testing.assert_array_equal(np.asarray(ranges), whole)
    start, stop = (data.draw(st.one_of(st.none(), st.integers(0, 25))) for _ in range(2))
    np.testing.assert_array_equal(ranges[start:stop], whole[start:stop])
    np.testing.assert_array_equal(rows_of(ranges, slice(start, stop)), whole[start:stop])  # type: ignore[arg-type]
    if columns:
        np.testing.assert_array_equal(ranges[:, 1][start:stop], whole[start:stop, 1])
    if len(whole):
        numbers = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1))), np.int64)
        np.testing.assert_array_equal(ranges[numbers], whole[numbers])


@pytest.mark.parametrize("of", [2, 3, 7])
def test_every_track_is_held_out_once_and_trained_on_otherwise(prepared: PreparedDataset, of: int) -> None:
    folded = [FoldedDataset.without(prepared, Fold(number, of)) for number in range(1, of + 1)]
    whole = {name: prepared.split(name) for name in ("train", "validation", "test")}
    for array in ARRAYS:
        own = {name: np.asarray(getattr(split, array)) for name, split in whole.items()}
        held_out = [np.asarray(getattr(each.split(HELD_OUT), array)) for each in folded]
        for each, left_out in zip(folded, held_out, strict=True):
            used = {name: np.asarray(getattr(each.split(name), array)) for name in whole}
            np.testing.assert_array_equal(used["test"], own["test"])
            together = np.concatenate([used["train"], used["validation"], left_out])
            both = np.concatenate([own["train"], own["validation"]])
            assert sorted(row.tobytes() for row in together) == sorted(row.tobytes() for row in both)
            share = len(used["validation"]) / len(used["train"])
            assert share == pytest.approx(len(own["validation"]) / len(own["train"]), rel=0.01)
        assert sum(map(len, held_out)) == len(own["train"]) + len(own["validation"])
    names = folded[0].split(HELD_OUT).aux_names
    np.testing.assert_array_equal(folded[0].split(HELD_OUT).column(names[1]), folded[0].split(HELD_OUT).aux[:][:, 1])


def copied_without(prepared: PreparedDataset, fold: Fold, folder: Path) -> PreparedDataset:
    """Write the dataset that remains without a fold."""
    shutil.copytree(prepared.path, folder)
    for name in ("train", "validation"):
        for array in ARRAYS:
            values = np.load(prepared.path / name / f"{array}.npy")
            rows = fold.rows(len(values))
            np.save(folder / name / f"{array}.npy", np.concatenate([values[: rows.start], values[rows.stop :]]))
    return PreparedDataset.open(folder)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("architecture", "options"),
    [("masked-mlp", {}), ("masked-mlp", {"resident_bytes": 0, "pool_rows": 1000}), ("boosted-trees", {}),
     ("random-forest", {})],
    ids=["resident", "streamed", "boosted-trees", "random-forest"],
)  # fmt: skip
def test_a_training_without_a_fold_is_that_on_the_remaining_tracks(
    prepared: PreparedDataset, tmp_path: Path, architecture: str, options: dict[str, int]
) -> None:
    fold, job = Fold(2, 3), small_job(architecture, max_epochs=2, class_weights="balanced")
    data = {"folded": FoldedDataset.without(prepared, fold), "copied": copied_without(prepared, fold, tmp_path / "set")}
    states = {}
    for name, dataset in data.items():
        (tmp_path / name).mkdir()
        summary = train(dataset, job, TARGET_NAMES, tmp_path / f"{name}.work", tmp_path / name, **options)
        states[name] = torch.load(tmp_path / name / "model.pt", weights_only=True)["state"], summary.thresholds
    assert states["folded"][1] == states["copied"][1]
    for key, value in states["copied"][0].items():
        assert torch.equal(states["folded"][0][key], value), key


def test_a_checkpoint_of_another_fold_is_not_used(prepared: PreparedDataset, tmp_path: Path) -> None:
    job = small_job(max_epochs=1)
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        folded = FoldedDataset.without(prepared, Fold(number, 2))
        train(folded, job, ["kaon"], tmp_path / "work", tmp_path / str(number))
    assert json.loads((tmp_path / "2" / "training.json").read_text())["resumed_epochs"] == 0


def test_more_folds_than_tracks_are_refused(tmp_path: Path) -> None:
    data = write_prepared(tmp_path / "set", (200, 20, 20))
    with pytest.raises(NoTracks, match=r"20 tracks of the validation sample cannot be divided into 21 folds"):
        FoldedDataset.without(data, Fold(1, 21))


def test_a_fold_without_a_species_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    data = write_prepared(tmp_path / "set", (3000, 600, 100))
    for name in ("train", "validation"):  # all kaons into the first of three folds
        path = tmp_path / "set" / name / "pdg.npy"
        pdg = np.load(path)
        kaon = by_name("kaon").pdg
        pdg[len(pdg) // 3 :][pdg[len(pdg) // 3 :] == kaon] = 211
        np.save(path, pdg)
    with pytest.raises(SpeciesAbsent, match=r"no kaon among the 2000 tracks of the train sample \(without fold 1 of 3"):
        check_labels(FoldedDataset.without(data, Fold(1, 3)), ["kaon"])
    with pytest.raises(SpeciesAbsent, match=r"no kaon among the 1200 tracks of the held-out sample \(fold 2 of 3\)"):
        check_labels(FoldedDataset.without(data, Fold(2, 3)), ["kaon"])
    check_labels(FoldedDataset.without(data, Fold(1, 3)), ["pion"])
