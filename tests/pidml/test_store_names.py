"""The names by which people ask for a job's outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pidml.errors import UnknownJob
from pidml.store import Store, index_key


def test_a_job_file_is_known_by_its_name_alone_if_there_is_one_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    place = index_key("/data/my job.yaml")
    store.write_index(place, {"Train": ["a"]})
    for name in ("/data/my job.yaml", place, "my job", "my job.yaml", "/elsewhere/my job.yaml"):
        assert store.read_index(name) == {"Train": ["a"]}
    for name in ("my", "job", "my job-", place[:-1], "my.job"):
        with pytest.raises(UnknownJob, match="no job"):
            store.read_index(name)


def test_of_several_one_has_to_be_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = sorted(index_key(f"/{place}/job.yaml") for place in "ab")
    for key in keys:
        store.write_index(key, {"Train": [key]})
    with pytest.raises(UnknownJob, match="several jobs called 'job'") as error:
        store.read_index("job")
    assert all(key in error.value.hint for key in keys)
    assert store.read_index("/a/job.yaml") != store.read_index("/b/job.yaml")
    store.write_index("job", {"Train": ["preset"]})
    assert store.read_index("job") == {"Train": ["preset"]}, "a name is itself first"
