"""What job files alone say about whether a comparison can be fair."""

from __future__ import annotations

from typing import Any

import pytest

from pidml import tracks
from pidml.comparison import check_jobs
from pidml.errors import NoLabels, UnfairComparison
from pidml.spec import JobSpec

FILES = {"dataset": {"files": ["/a/b.root", "/a/c.root"]}}
FEWER = list(tracks.FEATURES[:-1])


def pair(first: dict[str, Any], second: dict[str, Any]) -> dict[str, JobSpec]:
    return {name: JobSpec.model_validate(FILES | job) for name, job in (("a", first), ("b", second))}


def preparation(**settings: Any) -> dict[str, Any]:
    return {"preparation": {"standardised": ["fTPCSignal"], **settings}}


@pytest.mark.parametrize(
    ("first", "second", "text", "hint"),
    [
        ({}, {"seed": 2024}, r"b would be trained on test tracks of a \(seed: 42 and 2024\)",
         "write `seed: 42` into both job files"),
        ({}, {"seed": 2024, "dataset": {"files": ["/a/c.root"]}}, r"\(seed: 42 and 2024, dataset.files\)",
         "write `seed: 42` into both job files, and name the same files in the same order"),
        ({}, preparation(test_fraction=0.1), r"b would be .* \(preparation.test_fraction: 0.2 and 0.1\)",
         "write `preparation: {test_fraction: 0.2}` into both job files, or name b first"),
        ({}, {"seed": 7, **preparation(test_fraction=0.3)}, r"seed: 42 and 7, preparation.test_fraction: 0.2 and 0.3",
         "write `seed: 42` and `preparation: {test_fraction: 0.2}` into both job files"),
        ({}, preparation(cuts={"momentum_min": 1.0}), r"cuts differ \(preparation.cuts.momentum_min: 0.0 and 1.0\)",
         "same dataset, producer, preparation and seed"),
        ({}, {"producer": {"magnetic_field": 0.2}}, r"\(/a/b.root, …\) .* in different ways \(producer.magnetic_field",
         "same dataset, producer, preparation and seed"),
        ({}, {"producer": {"backend": "o2physics"}}, r"\(producer.backend: native and o2physics\)\n",
         "same dataset, producer, preparation and seed"),
        (preparation(features=FEWER), {"dataset": {"files": ["/d.root"]}},
         f"a lacks the features {tracks.FEATURES[-1]}", "same dataset, producer, preparation and seed"),
        ({}, {"seed": 1, **preparation(momentum_limits={"tof": 0.6})}, "preparation.momentum_limits differ",
         "same dataset, producer, preparation and seed"),
    ],
)  # fmt: skip
def test_what_cannot_be_fair_is_known_from_the_job_files(
    first: dict[str, Any], second: dict[str, Any], text: str, hint: str
) -> None:
    with pytest.raises(UnfairComparison, match=text) as caught:
        check_jobs(pair(first, second))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"model": {"architecture": "mlp"}, "name": "another"}),
        ({}, preparation(features=FEWER, momentum_limits={"tof": 0.6})),
        ({}, preparation(validation_fraction=0.1)),
        (preparation(test_fraction=0.1), preparation()),  # the first job's test tracks are among the other's
        ({}, {"producer": {"files_per_group": 1}}),
        ({}, {"seed": 2024, "dataset": {"files": ["/elsewhere.root"]}, "producer": {"magnetic_field": 0.2}}),
        ({}, {"seed": 2024, "producer": {"subsample_tracks": 5}}),  # these need not be test tracks of the first
        ({}, {"seed": 2024, **preparation(max_tracks=5)}),
        ({"dataset": {**FILES["dataset"], "require": 0.5}}, {"seed": 2024}),  # which files there will be is not known
    ],
)
def test_what_only_the_tracks_can_tell_passes(first: dict[str, Any], second: dict[str, Any]) -> None:
    check_jobs(pair(first, second))


def test_every_job_is_compared_with_the_first_and_needs_labels() -> None:
    jobs = pair({}, {"model": {"architecture": "mlp"}})
    with pytest.raises(UnfairComparison, match="c would be trained on test tracks of a"):
        check_jobs(jobs | {"c": pair({}, {"seed": 1})["b"]})
    with pytest.raises(NoLabels, match=r"dataset\.simulation is false"):
        check_jobs(pair({}, {"dataset": {**FILES["dataset"], "simulation": False}}))
