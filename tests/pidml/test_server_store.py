"""The server's store by itself: durability settings, left-over files, keys, the fields of the form."""

import io
import os
import sqlite3

import pytest

from pidml.errors import SpecError, StoreError
from pidml.server.aod import aod_file
from pidml.server.keys import KeyVerifier, new_key
from pidml.server.protocol import FileType, TaskStatus
from pidml.server.results import NewResult
from pidml.server.store import ServerStore
from pidml.spec.deployed_fields import DEPLOYED_FIELDS


@pytest.fixture
def store(tmp_path):
    with ServerStore(tmp_path) as opened:
        yield opened


@pytest.fixture
def task(store):
    machine = store.register_machine("m")
    task = store.queue_task("t", [{"Path": "/a"}], {})
    assert store.assign_next(machine.id).id == task
    return task


def test_the_database_flushes_every_commit(store):
    with store.database.read() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_failed_transaction_leaves_nothing(store, task):
    def spoil():
        with store.database.write() as connection:
            connection.execute("DELETE FROM status_changes")
            connection.execute("DELETE FROM machines")  # refused: the machine has a task

    with pytest.raises(sqlite3.IntegrityError):
        spoil()
    assert len(store.history(task)) == 2
    assert store.set_status(task, TaskStatus.COMPLETED) is True


def test_a_database_of_another_version_is_refused(store, tmp_path):
    store.close()
    with sqlite3.connect(tmp_path / "server.sqlite") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="schema version 99"):
        ServerStore(tmp_path)


def test_left_over_files_are_removed_and_results_stay(store, task):
    result, created = store.add_result(NewResult(task, "n", "d", FileType.LOG, "a.log"), io.BytesIO(b"kept"))
    assert created is True
    folder = store.result_path(result).parent
    orphans = [folder / "orphan", folder / ".half.tmp-0123456789ab", folder / "young"]
    for path in orphans:
        path.write_bytes(b"x")
    for path in (*orphans[:2], store.result_path(result)):
        os.utime(path, (1, 1))
    assert store.remove_orphans() == 2
    assert sorted(path.name for path in folder.iterdir()) == sorted([result.stored_name, "young"])
    assert store.result_path(result).read_bytes() == b"kept"


def test_status_changes_only_from_where_asked(store, task):
    assert store.set_status(task, TaskStatus.FAILED, only_from=TaskStatus.QUEUED) is False
    assert store.set_status(task, TaskStatus.TRAINING) is False
    assert store.set_status(10**6, TaskStatus.FAILED) is False
    assert store.set_status(task, TaskStatus.UPLOADED) is True
    assert store.task(task).status is TaskStatus.UPLOADED
    assert store.task_counts() == {**dict.fromkeys(TaskStatus, 0), TaskStatus.UPLOADED: 1}


def test_tasks_come_newest_first_in_parts(store):
    queued = [store.queue_task(f"t{n}", [{"Path": "/a"}], {}) for n in range(5)]
    assert [task.id for task in store.tasks()] == queued[::-1]
    assert [task.id for task in store.tasks(limit=2, offset=1)] == [queued[3], queued[2]]


def test_a_key_is_recognised_and_a_changed_hash_is_verified_anew():
    keys, key = KeyVerifier(), new_key()
    stored = keys.hash(key)
    assert stored.startswith("$argon2id$")
    assert [keys.verify(stored, text) for text in (key + "x", key, key, key + "x", "", new_key())] == [
        *(False, True, True, False, False, False)
    ]
    other = keys.hash(new_key())
    assert keys.verify(other, key) is False
    assert keys.verify("no hash", key) is False
    assert key not in str(vars(keys))


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "\u202e", "n" * 256])
def test_names_that_cannot_be_shown_are_refused(store, name):
    with pytest.raises(SpecError):
        store.register_machine(name)
    assert store.machines() == []


@pytest.mark.parametrize(
    ("lfn", "layout"),
    [
        ("/alice/sim/2024/LHC24b1b/0/535084/AOD/001/AO2D.root", ("LHC24b1b", 535084, 1)),
        ("/alice/data/2023/LHC23f/535084/0010/AO2D.root", ("LHC23f", 535084, 10)),
        ("/alice/sim/2026/LHC26sandbox/0/560001/AOD/012/AO2D.root", ("LHC26sandbox", 560001, 12)),
        ("alien:///elsewhere/AO2D.root", None),
        ("/alice/sim/2024/LHC24b1b/" + "9" * 5000 + "/1/AO2D.root", None),
    ],
)
def test_the_layout_of_an_lfn(lfn, layout):
    described = aod_file(lfn)
    assert (described["Name"], described["Path"]) == ("AO2D.root", lfn)
    assert "Size" not in described
    found = tuple(described[key] for key in ("LHCPeriod", "RunNumber", "AODNumber") if key in described)
    assert found == (layout or ())


def test_the_deployed_fields_are_consistent():
    assert len({entry.key for entry in DEPLOYED_FIELDS}) == len(DEPLOYED_FIELDS) == 14
    for entry in DEPLOYED_FIELDS:
        if entry.type == "bool":
            assert (type(entry.default), entry.minimum, entry.maximum, entry.step) == (bool, None, None, None)
        else:
            assert entry.minimum <= entry.default <= entry.maximum
            assert entry.step > 0
            if entry.type == "uint":
                assert {type(value) for value in (entry.default, entry.minimum, entry.maximum, entry.step)} == {int}
