"""Whether comparing jobs can be fair, as far as their files say: what is known before anything is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pidml.comparison.settings import differing
from pidml.errors import UnfairComparison
from pidml.spec import JobSpec

HINT = "compare jobs with the same dataset, producer, preparation and seed"
#: Which of a file's tracks are taken, and which sample each falls into; the other settings of the producer say how a
#: track is made.
_DRAWN = ("producer.files_per_group", "producer.subsample_tracks", "producer.subsample_events")
_DIVIDED = ("seed", "dataset.files", "dataset.require", *_DRAWN, "preparation.test_fraction", "preparation.max_tracks")


def check_jobs(jobs: Mapping[str, JobSpec]) -> None:
    """Refuse jobs that cannot be compared on the test tracks of the first.

    Different cuts, and different producers of the same files, count as making different tracks. What this accepts may
    still be unfair: :func:`pidml.comparison.contestants.entrants` looks at the tracks.

    Args:
        jobs: name → specification.

    Raises:
        NoLabels: a job's data are experimental.
        UnfairComparison: a model would be trained on test tracks, or on data too different.
    """
    for job in jobs.values():
        job.check_labels()
    (first, ours), *others = jobs.items()
    for other, theirs in others:
        problems = unlike_tracks(ours, theirs)
        if _other_test_tracks(ours, theirs):
            limits = [each.preparation.momentum_limits.model_dump() for each in (ours, theirs)]
            names = [each.preparation.features for each in (ours, theirs)]
            problems += unlike_features(first, limits[0] == limits[1], names[0], names[1])
        hint = HINT
        if not problems and _sees_test_tracks(ours, theirs):
            problems = [f"{other} would be trained on test tracks of {first}{division(ours, theirs)}"]
            hint = remedy(ours, theirs, other)
        if problems:
            raise UnfairComparison(f"{other} cannot be compared with {first}: {'; '.join(problems)}", hint)


def unlike_tracks(ours: JobSpec, theirs: JobSpec) -> list[str]:
    """Say why tracks of one job are none of the other's: different cuts, or producers of the same files."""
    rows, problems = differing([ours, theirs]), []
    if cuts := [row for row in rows if row["key"].startswith("preparation.cuts.")]:
        problems.append(f"preparation.cuts differ ({_shown(cuts)})")
    made = [row for row in rows if row["key"].startswith("producer.") and row["key"] not in _DRAWN]
    if made and (files := _shared_files(ours, theirs)):
        problems.append(
            f"they share input files ({min(files)}, …) whose tracks were produced in different ways ({_shown(made)})"
        )
    return problems


def unlike_features(first: str, same_limits: bool, ours: tuple[str, ...], theirs: tuple[str, ...]) -> list[str]:
    """Say why a model cannot be given the features of the first job's tracks."""
    problems = [] if same_limits else ["preparation.momentum_limits differ"]
    if lacking := [name for name in theirs if name not in ours]:
        problems.append(f"{first} lacks the features {', '.join(lacking)}")
    return problems


def division(ours: JobSpec, theirs: JobSpec) -> str:
    """Name in brackets the settings by which the jobs divide their tracks differently; nothing if there are none."""
    rows = [row for row in differing([ours, theirs]) if row["key"] in _DIVIDED]
    return f" ({_shown(rows)})" if rows else ""


def remedy(ours: JobSpec, theirs: JobSpec, other: str) -> str:
    """Say what to write into the job files so that the samples are the same."""
    if unlike_tracks(ours, theirs) or ours.preparation.max_tracks != theirs.preparation.max_tracks:
        return HINT
    (test, own), writes = (each.preparation.test_fraction for each in (ours, theirs)), []
    if ours.seed != theirs.seed:
        writes.append(f"`seed: {ours.seed}`")
    if test != own:
        writes.append(f"`preparation: {{test_fraction: {test}}}`")
    if not writes:
        return HINT
    written = f"write {' and '.join(writes)} into both job files"
    if _paths(ours) != _paths(theirs):
        return f"{written}, and name the same files in the same order"
    return written + (f", or name {other} first" if own < test and ours.seed == theirs.seed else "")


def _other_test_tracks(ours: JobSpec, theirs: JobSpec) -> bool:
    """Tell whether the jobs' test samples cannot be the same tracks."""
    return (
        ours.seed != theirs.seed
        or ours.preparation.test_fraction != theirs.preparation.test_fraction
        or set(_paths(ours)) != set(_paths(theirs))
    )


def _sees_test_tracks(ours: JobSpec, theirs: JobSpec) -> bool:
    """Tell whether test tracks of the first job are sure to be among those that the other trains on.

    A track's sample depends on the seed and its place in the input; those with the smallest numbers are tested on.
    """
    drawn = theirs.preparation.max_tracks or theirs.producer.subsample_tracks or theirs.producer.subsample_events
    if drawn or {ours.dataset.require, theirs.dataset.require} != {"all"}:
        return False  # which tracks there are is not known
    if ours.seed != theirs.seed:
        return bool(_shared_files(ours, theirs))
    same_places = _paths(ours) == _paths(theirs) and ours.producer.identity() == theirs.producer.identity()
    return same_places and theirs.preparation.test_fraction < ours.preparation.test_fraction


def _paths(job: JobSpec) -> list[str]:
    return [file.path for file in job.dataset.files]


def _shared_files(ours: JobSpec, theirs: JobSpec) -> set[str]:
    return set(_paths(ours)) & set(_paths(theirs))


def _shown(rows: list[dict[str, Any]]) -> str:
    """Return settings with both values, the first job's first; lists of files without."""
    found = []
    for row in rows:
        if None in row["values"]:  # one of the jobs does not read it, for a reason that another row shows
            continue
        ours, theirs = row["values"]
        found.append(row["key"] + ("" if isinstance(ours, list) else f": {ours} and {theirs}"))
    return ", ".join(found)
