"""The store's cleaning: what a kept job needs stays, whatever else is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pidml.atomic import exclusive
from pidml.errors import UnknownJob
from pidml.gc import find_garbage
from pidml.store import Store

DATA, A, B, EARLIER, FRESH = (digit * 12 for digit in "0abcf")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two jobs that share data; an output of earlier settings; leftovers of a kill, old and new."""
    store = Store(tmp_path)
    store.write_index("a", {"PrepareDataset": [DATA], "Train": [A]})
    store.write_index("b", {"PrepareDataset": [DATA], "Train": [B]})
    old = [("PrepareDataset", DATA), ("Train", A), ("Train", B), ("Train", EARLIER), ("Train", f".{A}.tmp-0")]
    for task, name in [*old, ("Train", f".{B}.tmp-0"), ("Train", FRESH)]:
        folder = tmp_path / task / name
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * 10)
    for task, name in old:
        os.utime(tmp_path / task / name, (0, 0))
    for name in (A, EARLIER):
        (tmp_path / "Train" / f"{name}.log").write_text("log")
        os.utime(tmp_path / "Train" / f"{name}.log", (0, 0))
    return store


def names(store: Store, **options: object) -> set[str]:
    return {str(each.path.relative_to(store.root)) for each in find_garbage(store, **options)}  # type: ignore[arg-type]


def test_outputs_of_earlier_settings_and_old_leftovers_can_go(store: Store) -> None:
    assert names(store) == {f"Train/{EARLIER}", f"Train/{EARLIER}.log", f"Train/.{A}.tmp-0"}


def test_without_a_minimum_age_what_is_new_goes_too(store: Store) -> None:
    assert names(store, min_age=-1) == names(store) | {f"Train/.{B}.tmp-0", f"Train/{FRESH}"}


def test_a_dropped_job_gives_up_what_it_does_not_share(store: Store) -> None:
    assert names(store, drop=["a"]) == names(store) | {"index/a.json", f"Train/{A}", f"Train/{A}.log"}
    for each in find_garbage(store, drop=["a"]):
        each.remove()
    assert store.jobs() == ["b"]
    assert sorted(path.name for path in (store.root / "PrepareDataset").iterdir()) == [DATA]
    assert sorted(path.name for path in (store.root / "Train").iterdir()) == [f".{B}.tmp-0", B, FRESH]


def test_sizes_are_those_of_the_files(store: Store) -> None:
    assert {each.size for each in find_garbage(store) if each.path.is_dir()} == {10}


def test_a_job_to_drop_must_be_known(store: Store) -> None:
    with pytest.raises(UnknownJob, match="jobs here: a, b"):
        find_garbage(store, drop=["c"])


def test_what_a_process_is_making_stays(store: Store) -> None:
    before = names(store, min_age=-1)
    with exclusive(store.root / "Train" / B):
        assert names(store, min_age=-1) == before - {f"Train/.{B}.tmp-0"}


def test_things_that_are_no_outputs_stay(store: Store) -> None:
    before = names(store, min_age=-1)
    for path in ("thesis/chapter1", "Train/notes", "DownloadAOD/.partial"):
        (store.root / path).mkdir(parents=True)
    assert names(store, min_age=-1) == before


def test_a_download_given_up_can_go_and_a_fresh_one_stays(store: Store) -> None:
    part = store.root / "DownloadAOD" / ".partial" / ("d" * 12)
    part.mkdir(parents=True)
    (part / ".AO2D.tmp-partial.root").write_bytes(b"x" * 5)
    before = names(store)
    for path in (part, *part.iterdir()):
        os.utime(path, (0, 0))
    assert names(store) == before | {f"DownloadAOD/.partial/{'d' * 12}"}
