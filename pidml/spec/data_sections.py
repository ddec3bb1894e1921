"""Sections about data: where it comes from, how track tables are produced, how they are prepared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pidml import tracks
from pidml.spec.base import Names, Real, Section, list_as_tuple, setting

_CHECKSUM = re.compile(r"^(md5|sha1|sha256|adler32|crc32c):[0-9a-f]+$")
MAX_PATH_LENGTH = 1024


class InputFile(Section):
    """One input file: an AO2D file, or a track table made elsewhere."""

    path: str = setting(
        ...,
        "LFN, alien://, root://, https://, s3:// or file:// address, or a local path",
        min_length=1,
        max_length=MAX_PATH_LENGTH,
    )
    size: int | None = setting(None, "size that the catalogue states; verified", "B", ge=0)
    checksum: str | None = setting(None, "checksum that the catalogue states, algorithm:hexadecimal; verified")

    @field_validator("path")
    @classmethod
    def _plain_path(cls, value: str) -> str:
        if any(ord(character) < 32 or ord(character) == 127 for character in value):
            raise ValueError("control characters are not allowed in a path")
        if ".." in value.split("/"):
            raise ValueError("'..' is not allowed in a path")
        return value

    @field_validator("checksum")
    @classmethod
    def _known_algorithm(cls, value: str | None) -> str | None:
        if value is not None and not _CHECKSUM.match(value):
            raise ValueError("must look like sha256:0123abcd (md5, sha1, sha256, adler32 or crc32c, lower case)")
        return value


def _as_input_files(value: Any) -> Any:
    """A file may be given as its path alone."""
    if not isinstance(value, (list, tuple)):
        return value
    return tuple({"path": item} if isinstance(item, str) else item for item in value)


InputFiles = Annotated[tuple[InputFile, ...], BeforeValidator(_as_input_files)]
Share = Literal["all"] | Annotated[Real, Field(gt=0, le=1)]


def refuse_twice(files: Sequence[InputFile]) -> None:
    """Raise ValueError if a path stands twice."""
    paths = Counter(file.path for file in files)
    if twice := sorted(path for path, count in paths.items() if count > 1):
        raise ValueError(f"files named twice: {', '.join(twice[:10])}")


class Dataset(Section):
    """What the job trains on."""

    files: InputFiles = setting(
        (), "input files: AO2D files or track tables (recognised by their content), as paths or {path, size, checksum}"
    )
    simulation: bool = setting(True, "true for simulation, false for experimental data (which has no labels)")
    require: Share = setting(
        "all", "what must be obtained of the files: all, or a minimum fraction (recorded and shown in the report)"
    )
    derive: Annotated[tuple[Literal["tpc_nsigma"], ...], BeforeValidator(list_as_tuple), Field(max_length=1)] = setting(
        (), "features that networks derive; tpc_nsigma: nσ of a TPC response that is learned first"
    )

    @model_validator(mode="after")
    def _no_file_twice(self) -> Self:
        refuse_twice(self.files)
        return self


class Producer(Section):
    """How AO2D files become track tables. Fields marked *where* say where it runs, not what comes out."""

    backend: Literal["native", "o2physics"] = setting(
        "native", "native: this package reads the AO2D tables; o2physics: the chain of O2Physics tasks"
    )
    table: Literal["training", "full"] = setting("training", "training: 21 columns; full: all 63 (o2physics only)")
    chain: Literal["current", "older"] = setting("current", "which chain of O2Physics tasks to run")
    light_ions: bool = setting(False, "O–O or Ne–Ne variant of the O2Physics chain (native needs no hint)")
    files_per_group: int = setting(10, "AO2D files that one producer run takes", ge=1, le=1000)
    subsample_tracks: int = setting(0, "tracks kept in all, drawn with the job's seed; 0 keeps everything", ge=0)
    subsample_events: int = setting(0, "collisions kept in all, drawn with the job's seed; 0 keeps everything", ge=0)
    magnetic_field: Real = setting(0.5, "solenoid field along z (native only)", "T", ge=-1, le=1)
    o2physics_version: str = setting(
        "latest", "version of O2Physics that alienv loads (o2physics only)", max_length=100, pattern=r"^\w[\w.+-]*$"
    )
    runtime: Literal["auto", "alienv", "container", "current"] = setting(
        "auto", "where: how O2Physics is entered; auto: what this machine has"
    )
    container_engine: Literal["auto", "apptainer", "podman", "docker"] = setting(
        "auto", "where: what runs the container; auto: the first that is installed"
    )
    container_image: str = setting(
        "", "where: image for runtime: container, by file, folder or address", max_length=500, pattern=r"^[\w./:@+~-]*$"
    )
    shm_segment_size: int = setting(
        20_000_000_000, "where: shared memory of the current chain", "B", ge=1_000_000, le=10**13
    )
    memory_rate_limit: int = setting(
        2_097_152_000, "where: memory of AO2D tables in flight in the current chain", "B", ge=1_000_000, le=10**13
    )
    max_hours: Real = setting(24.0, "where: longest time of one run of O2Physics", "h", gt=0, le=1000)

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.table == "full" and self.backend == "native":
            raise ValueError("table: full needs backend: o2physics")
        if self.backend == "o2physics" and self.chain == "older" and (self.table == "full" or self.light_ions):
            raise ValueError("chain: older makes training tables only, and has no variant for light_ions")
        if self.container_image.startswith("-"):
            raise ValueError("container_image must not begin with '-'")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the settings that change what comes out of the backend chosen."""
        where = {"runtime", "container_engine", "container_image", "shm_segment_size", "memory_rate_limit", "max_hours"}
        o2physics = {"chain", "light_ions", "o2physics_version"}
        other = o2physics if self.backend == "native" else {"magnetic_field"}
        return self.model_dump(mode="json", exclude=where | other)


class MomentumLimitsSection(Section):
    """Momenta below which O2Physics hides a detector from the networks."""

    tof: Real = setting(0.5, "below this momentum TOF counts as missing", "GeV/c", ge=0, le=100)
    trd: Real = setting(0.8, "below this momentum TRD counts as missing", "GeV/c", ge=0, le=100)

    def as_limits(self) -> tracks.MomentumLimits:
        """Return the limits in the form that the rule in :mod:`pidml.tracks` takes."""
        return tracks.MomentumLimits(tof=self.tof, trd=self.trd)


class Cuts(Section):
    """Which tracks are used; a track on an edge is dropped."""

    tpc_signal_min: Real = setting(0.0, "smallest TPC signal", "a.u.", ge=0)
    tpc_signal_max: Real = setting(10000.0, "largest TPC signal", "a.u.", gt=0)
    momentum_min: Real = setting(0.0, "smallest momentum", "GeV/c", ge=0)
    momentum_max: Real = setting(1000.0, "largest momentum", "GeV/c", gt=0)
    abs_eta_max: Real = setting(10.0, "largest |η|", gt=0)
    primaries_only: bool = setting(False, "keep physical primaries only (simulation)")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for low, high in (("tpc_signal_min", "tpc_signal_max"), ("momentum_min", "momentum_max")):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(f"{low} must be below {high}")
        return self


class Preparation(Section):
    """How track tables become training, validation and test samples."""

    features: Names = setting(tracks.FEATURES, "columns that networks see, in this order", min_length=1)
    standardised: Names = setting(
        tracks.STANDARDISED,
        "features scaled to mean 0 and standard deviation 1; others are raw. By default those of this list that are "
        "among the features",
    )
    useless_features: Literal["refuse", "allow"] = setting(
        "refuse",
        "what to do about features that are constant or missing for every track; allow: networks ignore them. "
        "A detector that no track has is never refused",
    )
    cuts: Cuts = Cuts()
    momentum_limits: MomentumLimitsSection = MomentumLimitsSection()
    validation_fraction: Real = setting(0.16, "part of the tracks for validation", gt=0, lt=1)
    test_fraction: Real = setting(0.20, "part of the tracks for the final evaluation", gt=0, lt=1)
    max_tracks: int = setting(0, "tracks taken at most; 0 takes all", ge=0)

    @model_validator(mode="before")
    @classmethod
    def _standardised_features(cls, given: Any) -> Any:
        """Standardise what is usual of the features, where the job says nothing of it."""
        features = given.get("features") if isinstance(given, dict) and "standardised" not in given else None
        if not isinstance(features, (list, tuple)):
            return given
        return {**given, "standardised": tuple(name for name in tracks.STANDARDISED if name in features)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        allowed = [name for name in tracks.COLUMNS if name not in tracks.TRUTH_COLUMNS]
        if unknown := [name for name in self.features if name not in allowed]:
            raise ValueError(f"features: no such column: {', '.join(unknown)}; allowed: {', '.join(allowed)}")
        if len(set(self.features)) != len(self.features):
            raise ValueError("features: a column stands twice")
        if stray := [name for name in self.standardised if name not in self.features]:
            raise ValueError(
                f"standardised: not among the features: {', '.join(stray)}; add them to features, or take them out of "
                "standardised, or leave standardised out: the usual ones of the features are taken then"
            )
        if self.validation_fraction + self.test_fraction >= 0.95:
            raise ValueError("validation_fraction + test_fraction must leave at least 5 % for training")
        return self
