"""The store's cleaning: what a kept job needs stays, whatever else is there."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from pidml.alicetraint.jobs import JobDirectory, State, store_claim
from pidml.atomic import exclusive
from pidml.batch.registry import Registry
from pidml.errors import StoreError, UnknownJob
from pidml.gc import Garbage, check_quiet, find_garbage
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
        touch_long_ago(tmp_path / task / name)
    for name in (A, EARLIER):
        (tmp_path / "Train" / f"{name}.log").write_text("log")
        os.utime(tmp_path / "Train" / f"{name}.log", (0, 0))
    return store


def touch_long_ago(*paths: Path) -> None:
    for path in paths:
        for each in (*path.rglob("*"), path):
            os.utime(each, (0, 0))


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


def test_what_is_kept_to_resume_goes_once_the_output_is_complete(store: Store) -> None:
    for digest in (A, B, EARLIER):
        (store.root / "Train" / f"{digest}.work").mkdir()
        (store.root / "Train" / f"{digest}.work" / "checkpoint").write_text("x")
        touch_long_ago(store.root / "Train" / f"{digest}.work")
    (store.root / "Train" / A / "provenance.json").write_text("{}")
    reasons = {each.path.name: each.reason for each in find_garbage(store)}
    assert reasons[f"{A}.work"] == "kept to resume, and its output is complete"
    assert reasons[f"{EARLIER}.work"] == "no kept job needs it"
    assert f"{B}.work" not in reasons, "a training that goes on"


def test_a_folder_that_is_written_to_is_in_use_however_old_it_is(store: Store) -> None:
    work = store.root / "Train" / f"{EARLIER}.work"
    work.mkdir()
    (work / "journal").write_text("written a moment ago")
    os.utime(work, (0, 0))
    assert f"Train/{EARLIER}.work" not in names(store)


def test_unfinished_writes_elsewhere_can_go(store: Store) -> None:
    left = [
        store.root / "index" / ".a.tmp-0.json",
        store.root / "jobs" / ".17.tmp-0",
        store.root / "jobs" / "17" / "pending" / ".x.tmp-0.json",
        store.root / "published" / A / ".x.tmp-0.json",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    assert not {str(path.relative_to(store.root)) for path in left} & names(store)
    touch_long_ago(*left)
    assert {str(path.relative_to(store.root)) for path in left} <= names(store)


def end_task(store: Store, task: int, days_ago: float, phase: str = "reported") -> JobDirectory:
    job = store_claim(store.root, task, b"{}", str(task))
    ended = time.time() - days_ago * 86_400
    job.save(State(phase=phase, outcome="completed", finished=ended))  # type: ignore[arg-type]
    store.write_index(f"task-{task}", {"PrepareDataset": [DATA], "Train": [f"{task:012d}"]})
    output = store.root / "Train" / f"{task:012d}"
    output.mkdir()
    touch_long_ago(output)
    return job


def test_tasks_that_ended_long_ago_go_with_what_no_other_job_needs(store: Store) -> None:
    end_task(store, 1, days_ago=40)
    end_task(store, 2, days_ago=20)
    end_task(store, 3, days_ago=40, phase="finished")
    owed = end_task(store, 4, days_ago=40)
    (owed.path / "pending").mkdir()
    (owed.path / "pending" / "000001.json").write_text("{}")
    assert names(store) & {"jobs/1", "Train/000000000001"} == set()
    found = names(store, tasks_older_than=30 * 86_400.0) - names(store)
    assert found == {"jobs/1", "index/task-1.json", "Train/000000000001"}


def test_a_task_set_aside_goes_with_those_that_ended(store: Store) -> None:
    path = store.root / "jobs" / "superseded" / "1-123"
    path.mkdir(parents=True)
    touch_long_ago(path)
    assert "jobs/superseded/1-123" not in names(store)
    assert "jobs/superseded/1-123" in names(store, tasks_older_than=30 * 86_400.0)


def test_a_collection_that_is_killed_at_any_moment_is_finished_by_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within every single removal, right after the renaming: the next collection goes on and ends clean."""
    end_task(store, 1, days_ago=40)
    remove, kills = shutil.rmtree, 0

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    while True:
        drop = ["a"] if "a" in store.jobs() else []
        found = find_garbage(store, drop, min_age=-1.0, tasks_older_than=30 * 86_400.0)
        if not found:
            break
        monkeypatch.setattr(shutil, "rmtree", remove if found[0].path.name.startswith(".") else killed)
        try:
            found[0].remove()
        except KeyboardInterrupt:
            kills += 1
            assert not found[0].path.exists()
    assert kills == 5
    assert store.jobs() == ["b"]
    assert [path.name for path in (store.root / "Train").iterdir()] == [B]
    assert list((store.root / "jobs").iterdir()) == []


def test_removal_of_what_is_gone_or_was_half_removed(tmp_path: Path) -> None:
    Garbage(tmp_path / "gone.log", 0, "").remove()
    half = tmp_path / ".abc.tmp-1"
    half.mkdir()
    Garbage(half, 0, "").remove()
    assert not half.exists()


def test_a_task_just_claimed_makes_removal_wait(store: Store) -> None:
    job = end_task(store, 1, days_ago=0)
    check_quiet(store)
    job.save(State(phase="claimed"))
    check_quiet(store)
    store.index_file("task-1").unlink()
    with pytest.raises(StoreError, match="task 1 has just been claimed"):
        check_quiet(store)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_jobs_in_a_queue_and_their_rerun_need_stays(store: Store, tmp_path: Path, elsewhere: bool) -> None:
    works = {name: store.root / "Train" / f"{name * 12}.work" for name in "de"}
    for work in works.values():
        work.mkdir()
        (work / "visible").write_text("node\n")
        touch_long_ago(work)
    journal = works["d"] / "submitted.jsonl"
    if elsewhere:  # `submit_dir` of a profile
        journal = tmp_path / "submit" / "Train" / ("d" * 12) / "submitted.jsonl"
    registry = Registry(store.root / ".batch" / "Train", "a job", journal.with_name("state.json"), "slurm", journal)
    registry.write({"pidml-Train-0-d-1": [A]})
    assert f"Train/{'d' * 12}.work" not in names(store)
    assert f"Train/{'e' * 12}.work" in names(store)
    os.utime(registry.path, (0, 0))
    assert f"Train/{'d' * 12}.work" in names(store), "nothing waits in a queue for months"
    registry.write({})
    registry.forget()
    assert f"Train/{'d' * 12}.work" in names(store)
